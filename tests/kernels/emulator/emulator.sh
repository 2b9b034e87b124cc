# To be sourced: Bochs 3, which Debian trixie has, as an emulator of other CPUs.
#
# It lies in EMULATOR, by default ~/.cache/dynamic-tinybert-emulator: a Debian of 0.6 GB that `prepare` makes by
# debootstrap from the mirror that apt uses here, as root. What was broken off goes on at the step that it had reached.
set -euo pipefail

folder=${EMULATOR:-$HOME/.cache/dynamic-tinybert-emulator}
root=$folder/debian
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

none() {
  echo "no emulator: $1" >&2
  exit 77
}

# `step NAME COMMAND ...`: once, ever; what it says goes into the log.
step() {
  local done=$folder/steps/$1
  [ ! -e "$done" ] || return 0
  echo "emulator: $1" >&2
  shift
  "$@" >>"$folder/log" 2>&1 </dev/null || none "'$*' failed; $folder/log ends: $(tail -n 3 "$folder/log" | tr '\n' ' ')"
  touch "$done"
}

mirror() { # of Debian, as apt knows it here
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1
}

debian() {
  rm -rf "$root"
  local mirror
  mirror=$(mirror)
  if [ -z "$mirror" ]; then
    apt-get update -qq
    mirror=$(mirror)
  fi
  [ -n "$mirror" ] || { echo "apt knows no mirror of Debian here"; return 1; }
  command -v debootstrap || apt-get install -y -qq debootstrap
  debootstrap --variant=minbase trixie "$root" "$mirror"
}

bochs() {
  chroot "$root" apt-get install -y -qq --no-install-recommends bochs bochs-term bochsbios vgabios \
    cpio isolinux syslinux-common xorriso
}

linux() { # the file alone
  chroot "$root" sh -euc 'cd /tmp
    apt-get download "$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: \(linux-image-[0-9].*\)/\1/p" | head -n 1)"
    dpkg -x linux-image-*.deb kernel
    mv kernel/boot/vmlinuz-* /boot/vmlinuz
    rm -r kernel linux-image-*.deb'
}

prepare() {
  [ "$(uname -sm)" = "Linux x86_64" ] || none "this is no x86-64 machine with Linux"
  [ "$(id -u)" = 0 ] || none "it is installed and run by root"
  command -v apt-get >/dev/null || none "apt is not here: its packages are Debian's"
  command -v cc >/dev/null || none "no C compiler is here"
  mkdir -p "$folder/steps"
  exec 9>"$folder/lock" && flock 9
  step debian debian
  step bochs bochs
  step linux linux
  flock -u 9
}

# A folder for one run, inside of the emulator's Debian: $work, and $inside as seen from there.
make_work() {
  work=$(mktemp -d "$root/run.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  inside=${work#"$root"}
  mkdir "$work/iso"
}

# `loads_by_isolinux LINE LINE MODULE ...`: $work/iso becomes what a CD starts from, by two lines of isolinux's settings.
loads_by_isolinux() {
  local to=$work/iso/isolinux module
  mkdir "$to"
  cp "$root/usr/lib/ISOLINUX/isolinux.bin" "$to"
  for module in ldlinux "${@:3}"; do cp "$root/usr/lib/syslinux/modules/bios/$module.c32" "$to"; done
  printf '%s\n' 'DEFAULT l' 'PROMPT 0' 'TIMEOUT 1' 'LABEL l' "$1" "$2" >"$to/isolinux.cfg"
}

# `boot MODEL FEATURES`: starts $work/iso and prints what comes through the serial line, but for the
# kernel's own lines. Ends with the status that its line "exit status N" says, or 124 if there is none in time.
boot() {
  local model=$1 features=$2
  chroot "$root" xorriso -as mkisofs -quiet -o "$inside/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$inside/iso" 2>/dev/null
  cat >"$work/bochsrc" <<RC
cpu: model=$model, count=1, ips=50000000, reset_on_triple_fault=0$features
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$inside/boot.iso, status=inserted
boot: cdrom
display_library: term
com1: enabled=1, mode=file, dev=$inside/serial.txt
log: $inside/log.txt
panic: action=fatal
RC
  # Its display needs a terminal, which `script` is.
  TERM=xterm timeout "${EMULATOR_SECONDS:-550}" \
    script -qec "chroot $root bochs -q -f $inside/bochsrc" /dev/null >/dev/null 2>&1 </dev/null || true
  touch "$work/serial.txt"
  local status
  status=$(sed -n 's/^exit status \([0-9]*\)\r\{0,1\}$/\1/p' "$work/serial.txt" | tail -n 1)
  sed '/^exit status /d; /^\[ *[0-9.]*\] /d; s/\r$//' "$work/serial.txt"
  if [ -z "$status" ]; then
    echo "the program did not end on the emulated $model; the emulator's log: $(tail -n 3 "$work/log.txt")" >&2
    exit 124
  fi
  exit "$status"
}
