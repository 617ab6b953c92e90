// The machine that the harness runs kernels on: see harness.hpp. It serves requests on its standard input:
//
//     kernels                                          what there is: names and types of parameters
//     buffer ID NBYTES PLACE NAME                      memory at an address that is PLACE modulo 256; then its bytes,
//                                                      and as many bytes of rights: bit 0 to read, bit 1 to write
//     launch NAME GRID BLOCK SHARED ORDER SEED RACES   then one line of arguments; answers with a digest of all buffers
//     read ID                                          answers with the bytes
//     clear                                            drops all buffers
//
// A fault is written to standard error, with kernel, block and thread, and ends the process.
#include <sys/mman.h>

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "harness.hpp"
#include "harness_fibers.hpp"
#include "harness_memory.hpp"

extern "C" void __sanitizer_set_death_callback(void (*)());

namespace harness {
namespace {

// ---- waiting ----

void pause(State state, const char* file, int line) {
    running->state = state, running->file = file, running->line = line;
    Fiber* self = running;
    change(self->context, scheduler);
}

const char* base(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

std::string waiting(const Fiber& f) {
    std::ostringstream out;
    out << "thread " << text(f.index);
    if (f.state == DONE) return out.str() + " has left the kernel";
    out << (f.state == AT_BARRIER ? " waits at the barrier in " : " waits for its warp in ");
    out << base(f.file) << ":" << f.line;
    return out.str();
}

// All threads wait, and nobody is left who could come.
[[noreturn]] void stuck() {
    for (unsigned i = 0; i < threads; ++i)
        for (unsigned j = 0; j < threads; ++j) {
            const Fiber &one = *fibers[i], &two = *fibers[j];
            if (one.state == DONE || (one.state == two.state && one.line == two.line && !strcmp(one.file, two.file)))
                continue;
            const bool at_barrier = one.state == AT_BARRIER || two.state == AT_BARRIER;
            const char* what = at_barrier ? "divergent barrier" : "divergent warp";
            running = fibers[i].get();
            fault("%s: %s, %s", what, waiting(one).c_str(), waiting(two).c_str());
        }
    for (unsigned i = 0; i < threads; ++i)
        if (fibers[i]->state == AT_GATHER) {
            running = fibers[i].get();
            fault("divergent warp: %s with mask %08x, for lanes that wait with another one", waiting(*running).c_str(),
                  running->mask);
        }
    fault("all threads wait");
}

void open_barrier() {
    for (unsigned i = 1; i < threads; ++i)
        if (fibers[i]->line != fibers[0]->line || strcmp(fibers[i]->file, fibers[0]->file)) stuck();
    for (unsigned i = 0; i < threads; ++i) fibers[i]->state = READY;
    arrived = 0;
    ++epoch;
}

void begin_thread() {
    kernel->call(words);
    running->state = DONE;
    if (!running->copies.empty()) fault("leaves the kernel with copies on their way");
    Fiber* self = running;
    change(self->context, scheduler);
}

void run_block(const std::vector<unsigned>& order) {
    epoch = 1, arrived = 0, fenced = false;
    for (auto& [site, region] : statics) std::fill(region->cells.begin(), region->cells.end(), Cell());
    if (dynamic) {
        std::fill(dynamic->cells.begin(), dynamic->cells.end(), Cell());
        memset(dynamic->at(), 0xFF, dynamic->size());
    }
    for (auto& [site, region] : statics) memset(region->at(), 0xFF, region->size());
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& f = *fibers[i];
        f.linear = i, f.warp = i / 32, f.lane = i % 32, f.state = READY, f.epoch = 1, f.groups = 0;
        f.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
        f.copies.clear();
        prepare(f.context, f.stack, STACK, begin_thread);
    }
    for (unsigned done = 0; done < threads;) {
        bool moved = false;
        for (unsigned i : order) {
            if (fibers[i]->state != READY) continue;
            running = fibers[i].get();
            change(scheduler, running->context);
            done += running->state == DONE;
            running = nullptr;
            moved = true;
        }
        if (!moved) {
            if (arrived != threads) stuck();
            open_barrier();
        }
    }
}

void need_fibers(unsigned count) {
    while (fibers.size() < count) {
        auto f = std::make_unique<Fiber>();
        char* room = static_cast<char*>(
            mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (room == MAP_FAILED) fault("no memory for stacks");
        mprotect(room, PAGE, PROT_NONE);
        f->stack = room + PAGE;
        fibers.push_back(std::move(f));
    }
}

std::vector<unsigned> in_order(unsigned count, const std::string& order, unsigned seed) {
    std::vector<unsigned> found(count);
    std::iota(found.begin(), found.end(), 0u);
    if (order == "reverse") std::reverse(found.begin(), found.end());
    if (order == "shuffled") {
        std::mt19937 random(seed);
        std::shuffle(found.begin(), found.end(), random);
    }
    return found;
}

void launch(std::istringstream& request) {
    std::string name, order;
    size_t shared_bytes;
    unsigned seed;
    request >> name >> grid.x >> grid.y >> grid.z >> block.x >> block.y >> block.z;
    request >> shared_bytes >> order >> seed >> races;
    kernel_name = name;
    auto found = kernels().find(name);
    if (found == kernels().end()) fault("there is no kernel of that name (TINYNET_KERNEL names it)");
    kernel = &found->second;
    std::string line;
    std::getline(std::cin, line);
    std::istringstream arguments(line);
    for (size_t i = 0; i < kernel->types.size(); ++i) {
        int id;
        uint64_t word;
        if (!(arguments >> id >> word)) fault("expected %zu arguments, got %zu", kernel->types.size(), i);
        words[i] = id < 0 ? word : buffers.at(id)->low + word;
    }
    const uint64_t product = uint64_t(block.x) * block.y * block.z;
    if (!product || product > 1024 || block.z > 64) fault("a block of %" PRIu64 " threads", product);
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffff)
        fault("a grid of %s", text(grid).c_str());
    if (shared_bytes > 227 * 1024) fault("%zu bytes of shared memory", shared_bytes);
    threads = unsigned(product);
    need_fibers(threads);
    regions.clear(), statics.clear(), latest = nullptr, static_bytes = 0;
    dynamic = region("the dynamic shared memory", shared_bytes, 0, true);
    regions.push_back(dynamic.get());
    for (auto& [id, each] : buffers) {
        regions.push_back(each.get());
        std::fill(each->cells.begin(), each->cells.end(), Cell());
    }
    const unsigned blocks = grid.x * grid.y * grid.z;
    const std::vector<unsigned> thread_order = in_order(threads, order, seed);
    for (unsigned i : in_order(blocks, order, seed)) {
        where = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
        block_number = i + 1;
        run_block(thread_order);
    }
    kernel_name.clear();
    uint64_t digest = 14695981039346656037u;
    for (auto& [id, each] : buffers)
        for (size_t i = 0; i < each->size(); ++i) digest = (digest ^ uint8_t(*each->at(i))) * 1099511628211u;
    std::cout << digest << std::endl;
}

void serve() {
    std::string line, verb;
    while (std::getline(std::cin, line)) {
        std::istringstream request(line);
        request >> verb;
        if (verb == "kernels") {
            for (auto& [name, known] : kernels()) std::cout << name << " " << known.types << " ";
            std::cout << std::endl;
        } else if (verb == "buffer") {
            int id;
            size_t size, place;
            std::string name;
            request >> id >> size >> place;
            std::getline(request >> std::ws, name);
            auto made = region(name, size, place, false);
            std::cin.read(made->at(), std::streamsize(size));
            std::cin.read(reinterpret_cast<char*>(made->rights.data()), std::streamsize(size));
            buffers[id] = std::move(made);
        } else if (verb == "launch") {
            launch(request);
        } else if (verb == "read") {
            int id;
            request >> id;
            std::cout.write(buffers.at(id)->at(), std::streamsize(buffers.at(id)->size())).flush();
        } else if (verb == "clear") {
            buffers.clear();
        } else {
            fault("unknown request: %s", line.c_str());
        }
    }
}

}  // namespace

// ---- what kernels call ----

Entry::Entry(const char* name, const char* types, void (*call)(const uint64_t*)) { kernels()[name] = {types, call}; }

Index thread_index() { return running->index; }
Index block_index() { return where; }
Index block_size() { return block; }
Index grid_size() { return grid; }
unsigned lane() { return running->lane; }
void fence() { fenced = true; }
void begin_atomic() { atomic = true; }
void end_atomic() { atomic = false; }
void fail(const char* text) { fault("%s", text); }

void barrier(const char* file, int line) {
    ++arrived;
    pause(AT_BARRIER, file, line);
}

void gather(unsigned mask, const void* mine, void* all, size_t size, const char* file, int line) {
    Fiber& self = *running;
    if (!(mask >> self.lane & 1))
        fault("is not in the mask %08x of its warp's operation in %s:%d", mask, base(file), line);
    self.mask = mask, self.mine = mine, self.all = all, self.size = size;
    self.state = AT_GATHER, self.file = file, self.line = line;
    const unsigned first = self.warp * 32;
    bool complete = true;
    for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        if (first + i >= threads)
            fault("waits for lane %u, which its warp does not have, in %s:%d", i, base(file), line);
        const Fiber& f = *fibers[first + i];
        if (f.state == DONE)
            fault("divergent warp: waits for %s, which has left the kernel, in %s:%d",
                  thread_named(uint16_t(first + i)).c_str(), base(file), line);
        complete &= f.state == AT_GATHER && f.mask == mask && f.line == line && f.size == size && !strcmp(f.file, file);
    }
    if (complete) {
        for (unsigned i = 0; i < 32; ++i) {
            if (!(mask >> i & 1)) continue;
            Fiber& to = *fibers[first + i];
            to.state = READY;
            for (unsigned j = 0; j < 32 && size; ++j)
                if (mask >> j & 1) memcpy(static_cast<char*>(to.all) + j * size, fibers[first + j]->mine, size);
        }
        return;
    }
    pause(AT_GATHER, file, line);
}

void sync_warp(unsigned mask, const char* file, int line) {
    if (mask == ~0u && threads % 32 && running->warp == threads / 32) mask = (1u << threads % 32) - 1;
    uint32_t epochs[32] = {};
    gather(mask, &running->epoch, epochs, sizeof(uint32_t), file, line);
    running->epoch = *std::max_element(epochs, epochs + 32) + 1;
}

// No better aligned than CUDA promises: a float may lie where no float4 may.
void* shared(const void* site, size_t bytes, size_t alignment, const char* name) {
    std::unique_ptr<Region>& found = statics[site];
    if (!found) {
        found = region(std::string("the shared array ") + name, bytes, alignment, true);
        memset(found->at(), 0xFF, bytes);
        regions.insert(regions.begin(), found.get());
        static_bytes += bytes;
        if (static_bytes > 48 * 1024) fault("%zu bytes of static shared memory", static_bytes);
    }
    return found->at();
}

void* dynamic_shared() { return dynamic->at(); }

void copy_later(void* to, const void* from, size_t size, size_t zeros) {
    running->copies.push_back({static_cast<char*>(to), static_cast<const char*>(from), size, zeros, running->groups});
}

void close_copies() { ++running->groups; }

// Only now: who reads what he has not waited for, finds what was there before, or nothing.
void wait_copies(size_t groups_left) {
    Fiber& self = *running;
    const auto arrives = [&](const Copy& copy) { return copy.group + groups_left < self.groups; };
    for (const Copy& copy : self.copies) {
        if (!arrives(copy)) continue;
        if (copy.size) access(const_cast<char*>(copy.from), copy.size, false, __builtin_return_address(0));
        access(copy.to, copy.size + copy.zeros, true, __builtin_return_address(0));
        memcpy(copy.to, copy.from, copy.size);
        memset(copy.to + copy.size, 0, copy.zeros);
    }
    std::erase_if(self.copies, arrives);
}

}  // namespace harness

// ---- what the compiler calls at each load and store ----

#define ACCESS(size)                                                                                               \
    void __tsan_read##size(void* p) { harness::access(p, size, false, __builtin_return_address(0)); }              \
    void __tsan_write##size(void* p) { harness::access(p, size, true, __builtin_return_address(0)); }              \
    void __tsan_unaligned_read##size(void* p) { harness::access(p, size, false, __builtin_return_address(0)); }    \
    void __tsan_unaligned_write##size(void* p) { harness::access(p, size, true, __builtin_return_address(0)); }    \
    void __tsan_volatile_read##size(void* p) { harness::access(p, size, false, __builtin_return_address(0)); }     \
    void __tsan_volatile_write##size(void* p) { harness::access(p, size, true, __builtin_return_address(0)); }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* p, size_t n) { harness::access(p, n, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { harness::access(p, n, true, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}

int main() {
    __sanitizer_set_death_callback(harness::tell_place);
    std::ios::sync_with_stdio(false);
    harness::serve();
}
