#!/usr/bin/env bash
# Runs a statically linked x86-64 program on a CPU that this machine does not have: in an emulator, emulator.sh.
#
#     on_emulated_cpu.sh MODEL PROGRAM [ARGUMENT ...]
#     on_emulated_cpu.sh --prepare
#
# MODEL is one of Bochs's (`bochs --help cpu`):
#   corei7_haswell_4770  AVX2                    corei7_skylake_x  AVX-512 without VNNI
#   arrow_lake           AVX2, AVX-VNNI          corei7_icelake_u  AVX-512 VNNI
#   sapphire_rapids      AVX-512 VNNI, AVX-VNNI; without its AMX, which Linux does not enable there
#
# PROGRAM is the only one that a Linux kernel starts. What it prints comes out here, and its exit status is this script's;
# 124 says that it did not end within EMULATOR_SECONDS (550), 77 that no emulator can be had here, and why. One emulated
# core does some 50 to 150 million instructions a second: Linux starts in half a minute; test kernels on it, not models.
source "$(dirname "$(readlink -f "$0")")/emulator.sh"

if [ "${1:-}" = --prepare ]; then
  prepare
  exit
fi
model=$1 program=$(readlink -f "$2")
shift 2
prepare
make_work
mkdir -p "$work/initramfs"/{dev,proc}
mknod "$work/initramfs/dev/console" c 5 1
cc -static -O1 -o "$work/initramfs/init" "$here/init.c"
cp "$program" "$work/initramfs/program"
printf '%s\n' "$@" >"$work/initramfs/arguments"
chroot "$root" sh -c "cd $inside/initramfs && find . | cpio -o -H newc --quiet | gzip -1" >"$work/iso/initrd.gz"
cp "$root/boot/vmlinuz" "$work/iso/vmlinuz"
loads_by_isolinux 'KERNEL /vmlinuz' \
  'APPEND initrd=/initrd.gz console=ttyS0 nokaslr mitigations=off tsc=reliable lpj=1000000 no5lvl quiet'
case $model in
  sapphire_rapids) features=', exclude_features="amx amx_int8 amx_bf16"' ;;
  *) features= ;;
esac
boot "$model" "$features"
