# What runs on a host, for the fingerprint of a run; beside the functions of common.sh and probe.sh, and
# like these it only reads. Of environments it prints names: no value leaves the host.

kernel() {
  section kernel
  uname -srm
  section system
  if [ -r /etc/os-release ]; then sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' /etc/os-release
  else absent "/etc/os-release cannot be read"; fi
  section cpu
  grep -m1 -E '^(model name|Hardware|Processor)' /proc/cpuinfo 2>/dev/null || absent "/proc/cpuinfo has no name of the CPU"
}

# Kernel modules behind interfaces.
drivers() {
  section drivers
  for dir in /sys/class/net/*; do
    [ -e "$dir/device/driver" ] || continue
    module=$(readlink "$dir/device/driver")
    printf '%s\t%s\n' "${dir##*/}" "${module##*/}"
  done
}

cuda() { ask cuda 20 nvidia-smi; }

# child PID: what PID has started, or itself. Over ssh an engine has a shell of ours above it, which waits.
child() {
  for file in /proc/[0-9]*/stat; do
    pid=${file#/proc/}
    pid=${pid%/stat}
    if stat_of "$pid" && [ "$pp" = "$1" ]; then printf '%s' "$pid"; return; fi
  done
  printf '%s' "$1"
}

# process ID PID: a line each word, and a line each name of a variable. Line breaks in words become blanks.
process() {
  section "command $1"
  if [ -r "/proc/$2/cmdline" ]; then tr '\n\0' ' \n' <"/proc/$2/cmdline" | sed 's/^/=/'
  else absent "/proc/$2/cmdline cannot be read"; fi
  section "environment $1"
  if [ -r "/proc/$2/environ" ]; then
    tr '\n\0' ' \n' <"/proc/$2/environ" | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' | sort
  else absent "/proc/$2/environ cannot be read"; fi
}
