#!/usr/bin/env bash
# Runs the product of 8 bits by AMX tiles on an emulated Xeon, without an operating system, as Linux does not enable tiles
# there. Status and settings are those of on_emulated_cpu.sh.
source "$(dirname "$(readlink -f "$0")")/emulator.sh"

prepare
make_work
g++ -std=c++20 -O2 -march=x86-64-v2 -ffp-contract=off -I "$here/../../../runtime/extension" \
  -nostdlib -static -no-pie -fno-pie -mno-red-zone -fno-exceptions -fno-rtti -fno-asynchronous-unwind-tables \
  -fno-stack-protector -fno-threadsafe-statics -fno-tree-loop-distribute-patterns -ffunction-sections -fdata-sections \
  -Wl,--gc-sections,--no-warn-rwx-segments,--build-id=none,-T,"$here/bare_metal.ld" -o "$work/program.elf" \
  "$here/bare_metal.S" "$here/amx_bare_metal.cpp"
objcopy -O binary "$work/program.elf" "$work/iso/program.bin"
loads_by_isolinux 'KERNEL mboot.c32' 'APPEND /program.bin' mboot libcom32
boot sapphire_rapids ""
