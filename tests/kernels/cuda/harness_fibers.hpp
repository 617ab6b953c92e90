// The threads of a block: fibers, each with a stack of its own, which run until they wait for each other. A part of
// harness.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <algorithm>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "harness.hpp"

namespace harness {
namespace {

#if defined(__x86_64__)
struct Context {
    void* stack = nullptr;
};
extern "C" void tinynet_switch(void** from, void* to);
asm(R"(
.text
.globl tinynet_switch
tinynet_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
void change(Context& from, Context& to) { tinynet_switch(&from.stack, to.stack); }
void prepare(Context& context, char* stack, size_t size, void (*start)()) {
    void** top = reinterpret_cast<void**>(stack + size) - 2;  // the stack of a function begins 8 bytes off 16
    *top = reinterpret_cast<void*>(start);
    std::fill(top - 6, top, nullptr);
    context.stack = top - 6;
}
#else
using Context = ucontext_t;
void change(Context& from, Context& to) { swapcontext(&from, &to); }
void prepare(Context& context, char* stack, size_t size, void (*start)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack, context.uc_stack.ss_size = size, context.uc_link = nullptr;
    makecontext(&context, start, 0);
}
#endif

constexpr size_t STACK = 64 * 1024, PAGE = 16 * 1024;
enum State { READY, AT_BARRIER, AT_GATHER, DONE };

struct Copy {
    char* to;
    const char* from;
    size_t size, zeros, group;
};

struct Fiber {
    Context context;
    char* stack = nullptr;
    Index index;
    unsigned linear, warp, lane;
    State state;
    const char* file = "";
    int line = 0;
    unsigned mask;
    const void* mine;
    void* all;
    size_t size, groups;
    uint32_t epoch;  // how often its warp has been ordered
    std::vector<Copy> copies;
};

}  // namespace
}  // namespace harness
