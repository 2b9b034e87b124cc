/* Boots a program without an operating system, for instructions that none enables on the emulated CPU: from the protected
   mode that a Multiboot loader leaves to long mode, all vectors and tiles on, the memory below 1 GiB where it is. Calls
   `run` and switches the emulator off. */

.set PAGES, 0x800000
.set STACK, 0xA00000
.set MAGIC, 0x1BADB002
.set FLAGS, 1 << 16  /* addresses follow */

.section .boot, "ax"
.balign 4
header:
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)
    .long header, header, data_end, bss_end, start

.code32
.globl start
start:
    cli
    lgdt table
    mov $PAGES, %edi
    xor %eax, %eax
    mov $2048, %ecx
    rep stosl
    movl $(PAGES + 0x1003), PAGES        /* one page of 1 GiB */
    movl $0x83, PAGES + 0x1000
    mov $PAGES, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $((1 << 5) | (1 << 9) | (1 << 10) | (1 << 18)), %eax
    mov %eax, %cr4
    mov $0xC0000080, %ecx
    rdmsr
    or $(1 << 8), %eax
    wrmsr
    mov %cr0, %eax
    and $~(1 << 2), %eax
    or $((1 << 31) | (1 << 1)), %eax
    mov %eax, %cr0
    ljmp $8, $long

.code64
long:
    xor %ecx, %ecx
    mov $0x600E7, %eax      /* x87, SSE, AVX, AVX-512, tiles */
    xor %edx, %edx
    xsetbv
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $STACK, %rsp
    mov $bss_begin, %rdi
    mov $bss_end, %rcx
    sub %rdi, %rcx
    xor %eax, %eax
    rep stosb
    call run
    mov $switch_off, %rsi
    mov $0x8900, %dx
    mov $8, %ecx
    rep outsb
1:  hlt
    jmp 1b

.balign 8
descriptors:
    .quad 0
    .quad 0x00AF9A000000FFFF             /* 8: code of 64 bits */
    .quad 0x00CF92000000FFFF             /* 16: data */
table:
    .word table - descriptors - 1
    .long descriptors
switch_off:
    .ascii "Shutdown"

.section .note.GNU-stack, "", @progbits
