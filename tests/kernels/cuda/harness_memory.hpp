// The memory of a launch, byte by byte: what may be touched, who touched it last, and what is wrong with that. A part
// of harness.cpp.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness_fibers.hpp"

extern "C" char __executable_start, _end;

namespace harness {
namespace {

// Who touched a byte last. A block counts from 1; 0: nobody.
struct Cell {
    uint32_t write_block = 0, write_epoch, write_warp_epoch, read_block = 0, read_epoch, read_warp_epoch;
    uint16_t write_thread, read_thread;
};
constexpr uint16_t WARP_OF = 0x8000, MANY = 0xFFFF, ATOMIC = 0xFFFE;  // several threads of warp WARP_OF | w; of several
constexpr uint32_t BLOCKS = ~0u;                                      // several blocks

struct Region {
    uintptr_t low = 0, high = 0;
    std::string name;
    bool is_shared = false;
    std::vector<uint8_t> rights;
    std::vector<Cell> cells;
    std::unique_ptr<char[]> held;
    char* at(size_t offset = 0) const { return reinterpret_cast<char*>(low) + offset; }
    size_t size() const { return high - low; }
    bool holds(uintptr_t a) const { return a >= low && a < high; }
};

struct Known {
    std::string types;
    void (*call)(const uint64_t*);
};

std::map<std::string, Known>& kernels() {
    static std::map<std::string, Known> all;
    return all;
}

std::map<int, std::unique_ptr<Region>> buffers;
std::map<const void*, std::unique_ptr<Region>> statics;  // shared arrays, by where they are declared
std::unique_ptr<Region> dynamic;
std::vector<Region*> regions;  // all that may be touched now
Region* latest = nullptr;

// ---- the launch that is run ----

std::string kernel_name;
const Known* kernel = nullptr;
uint64_t words[64];
Index grid, block, where;
uint32_t block_number, epoch;
bool races, fenced, atomic;
size_t static_bytes;
Context scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;
unsigned threads, arrived;
Fiber* running = nullptr;  // null: what runs is the harness

std::string text(Index i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

void tell_place() {
    fflush(stdout);
    if (!kernel_name.empty()) fprintf(stderr, "in kernel %s", kernel_name.c_str());
    if (running)
        fprintf(stderr, ", block %s, thread %s", text(where).c_str(), text(running->index).c_str());
    fprintf(stderr, "\n");
    fflush(stderr);
}

void* instruction = nullptr;  // where the access that is looked at was made

[[noreturn]] void fault(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "fault: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    tell_place();
    if (instruction) fprintf(stderr, "at %p\n", instruction);
    fflush(stderr);
    _exit(3);
}

std::string thread_named(uint16_t linear) {
    if (linear == MANY || linear == ATOMIC) return "other threads";
    if (linear & WARP_OF) return "other threads of its warp";
    return "thread " + text(fibers[linear]->index);
}

[[noreturn]] void outside(uintptr_t a, size_t size, bool write) {
    const Region* nearest = nullptr;
    uintptr_t distance = 1 << 20;
    for (const Region* each : regions) {
        const uintptr_t far = a < each->low ? each->low - a : a >= each->high ? a - each->high : 0;
        if (far < distance) nearest = each, distance = far;
    }
    const char* verb = write ? "writes" : "reads";
    if (!nearest) fault("%s %zu bytes at an address that is in no array: %p", verb, size, (void*)a);
    const char* name = nearest->name.c_str();
    if (a < nearest->low)
        fault("%s %zu bytes out of bounds, %zu bytes before the beginning of %s (%zu bytes)", verb, size,
              size_t(distance), name, nearest->size());
    if (a >= nearest->high)
        fault("%s %zu bytes out of bounds, %zu bytes behind the end of %s (%zu bytes)", verb, size, size_t(distance),
              name, nearest->size());
    if (write && nearest->rights[a - nearest->low])
        fault("writes %zu bytes at byte %zu of %s, which may only be read", size, size_t(a - nearest->low), name);
    fault("%s %zu bytes out of bounds, between the rows of %s, at byte %zu", verb, size, name,
          size_t(a - nearest->low));
}

Region* region_of(uintptr_t a) {
    if (latest && latest->holds(a)) return latest;
    for (Region* each : regions)
        if (each->holds(a)) return latest = each;
    return nullptr;
}

// Whether what thread `other` of this block did in (other_epoch, other_warp_epoch) lies before what runs now.
bool ordered(uint16_t other, uint32_t other_epoch, uint32_t other_warp_epoch) {
    if (other_epoch != epoch || other == running->linear) return true;
    if (other == MANY || other == ATOMIC) return false;
    const unsigned warp = other & WARP_OF ? other & ~WARP_OF : other / 32;
    return warp == running->warp && running->epoch > other_warp_epoch;
}

void conflict(const Region& region, size_t byte, bool write, uint32_t other_block, uint16_t other, bool other_wrote) {
    const char *now = write ? "writes" : "reads", *before = other_wrote ? "wrote" : "read";
    if (other_block != block_number)
        fault("race: %s byte %zu of %s, which another block %s in the same launch", now, byte, region.name.c_str(),
              before);
    fault("race: %s byte %zu of %s, which %s %s with no barrier between", now, byte, region.name.c_str(),
          thread_named(other).c_str(), before);
}

void access(void* address, size_t size, bool write, void* caller) {
    if (!running) return;
    uintptr_t a = reinterpret_cast<uintptr_t>(address);
    if (a - reinterpret_cast<uintptr_t>(running->stack) < STACK) return;
    if (!write && a >= uintptr_t(&__executable_start) && a < uintptr_t(&_end)) return;
    instruction = caller;
    Region* region = region_of(a);
    if (!region) outside(a, size, write);
    for (size_t byte = a - region->low, end = byte + size; byte < end; ++byte) {
        if (byte >= region->size() || !(region->rights[byte] & (write ? 2 : 1)))
            outside(region->low + byte, size, write);
        Cell& cell = region->cells[byte];
        if (region->is_shared && !write && !cell.write_block)
            fault("reads byte %zu of %s, which no thread of the block has written", byte, region->name.c_str());
        if (!races) {
            if (write) cell.write_block = block_number;
            continue;
        }
        if (cell.write_block && !(atomic && cell.write_thread == ATOMIC)) {
            if (cell.write_block != block_number ? !fenced
                                                 : !ordered(cell.write_thread, cell.write_epoch, cell.write_warp_epoch))
                conflict(*region, byte, write, cell.write_block, cell.write_thread, true);
        }
        if (write) {
            if (cell.read_block && !(atomic && cell.write_thread == ATOMIC)) {
                if (cell.read_block != block_number ? !fenced
                                                    : !ordered(cell.read_thread, cell.read_epoch, cell.read_warp_epoch))
                    conflict(*region, byte, true, cell.read_block, cell.read_thread, false);
            }
            cell.read_block = 0;
            cell.write_block = block_number, cell.write_epoch = epoch, cell.write_warp_epoch = running->epoch;
            cell.write_thread = atomic ? ATOMIC : uint16_t(running->linear);
        } else if (atomic) {
            continue;
        } else if (cell.read_block && cell.read_block != block_number) {
            cell.read_block = BLOCKS, cell.read_thread = MANY;
        } else if (!cell.read_block || cell.read_epoch != epoch) {
            cell.read_block = block_number, cell.read_epoch = epoch, cell.read_warp_epoch = running->epoch;
            cell.read_thread = uint16_t(running->linear);
        } else if (cell.read_thread != running->linear && cell.read_thread != MANY) {
            const unsigned warp = cell.read_thread & WARP_OF ? cell.read_thread & ~WARP_OF : cell.read_thread / 32;
            cell.read_thread = warp == running->warp ? uint16_t(WARP_OF | warp) : MANY;
            cell.read_warp_epoch = std::max(cell.read_warp_epoch, running->epoch);
        } else {
            cell.read_warp_epoch = running->epoch;
        }
    }
    instruction = nullptr;
}

std::unique_ptr<Region> region(const std::string& name, size_t size, size_t place, bool is_shared) {
    constexpr size_t APART = 1024;  // an index that is a little wrong does not end in another array
    auto found = std::make_unique<Region>();
    found->held.reset(new char[size + 2 * APART + 256]);
    const uintptr_t start = reinterpret_cast<uintptr_t>(found->held.get()) + APART;
    found->low = start + (place - start % 256 + 256) % 256;
    found->high = found->low + size;
    found->name = name;
    found->is_shared = is_shared;
    found->rights.assign(size, 3);
    found->cells.resize(size);
    return found;
}

}  // namespace
}  // namespace harness
