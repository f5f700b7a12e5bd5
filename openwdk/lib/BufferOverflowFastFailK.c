// SPDX-License-Identifier: MIT OR Apache-2.0

// Stack protection for drivers: what code compiled with /GS refers to. A
// damaged stack ends in a fast-fail, which the kernel turns into a bug check.
//
// Rust code has no stack cookies of its own; this is for C and C++ that is
// linked into a driver, and for `FxDriverEntry`, which seeds the cookie.

typedef unsigned long long uintptr;

// Values that Microsoft's compiler documentation gives: the cookie's well-known
// initial value, and the fast-fail code for a failed cookie check.
#define DEFAULT_SECURITY_COOKIE 0x00002B992DDFA232ULL
#define FAST_FAIL_STACK_COOKIE_CHECK_FAILURE 2

uintptr __security_cookie = DEFAULT_SECURITY_COOKIE;
uintptr __security_cookie_complement = ~DEFAULT_SECURITY_COOKIE;

// The loader of the kernel, since Windows 8, seeds the cookie through the load
// configuration directory of the image. Where there is none, this does.
void __security_init_cookie(void)
{
    if (__security_cookie == 0 || __security_cookie == DEFAULT_SECURITY_COOKIE) {
        uintptr seed = __builtin_ia32_rdtsc() ^ (uintptr)&__security_cookie;
        // The upper 16 bits stay zero, so that a string copy that runs over the
        // cookie is stopped by them.
        seed &= 0x0000FFFFFFFFFFFFULL;
        __security_cookie = seed != 0 ? seed : DEFAULT_SECURITY_COOKIE;
    }
    __security_cookie_complement = ~__security_cookie;
}

__attribute__((noreturn)) void __report_gsfailure(uintptr cookie)
{
    (void)cookie;
    // `int 29h` with the reason in ecx is the fast-fail of x86-64 Windows.
    __asm__ volatile("int $0x29" : : "c"(FAST_FAIL_STACK_COOKIE_CHECK_FAILURE));
    __builtin_unreachable();
}

void __security_check_cookie(uintptr cookie)
{
    if (cookie != __security_cookie) {
        __report_gsfailure(cookie);
    }
}

// Exception handlers of functions with a cookie. They tell the dispatcher to
// search on (ExceptionContinueSearch). The handlers of Microsoft also check the
// frame's cookie before they do; without it a damaged frame is still caught by
// `__security_check_cookie` when the function returns.
int __GSHandlerCheck(void *record, void *frame, void *context, void *dispatcher)
{
    (void)record;
    (void)frame;
    (void)context;
    (void)dispatcher;
    return 1;
}

// Probes the pages of a stack frame larger than one, of which rax holds the
// size, so that a stack that is too small faults on its guard page. May change
// r10 and r11 only.
__asm__(".globl __chkstk\n"
        "__chkstk:\n"
        "    leaq 8(%rsp), %r10\n"
        "    movq %rax, %r11\n"
        "1:  cmpq $0x1000, %r11\n"
        "    jb 2f\n"
        "    subq $0x1000, %r10\n"
        "    testb $0, (%r10)\n"
        "    subq $0x1000, %r11\n"
        "    jmp 1b\n"
        "2:  subq %r11, %r10\n"
        "    testb $0, (%r10)\n"
        "    ret\n");
