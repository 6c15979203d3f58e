# Looks at a host before anything is started on it; changes nothing.
# Functions are called below by lines that the caller appends: program NAME, port NUMBER.

printf 'boot %s\n' "$(cat /proc/sys/kernel/random/boot_id)"
for tool in setsid tail awk grep tr; do
    command -v "$tool" >/dev/null 2>&1 || printf 'lacks %s\n' "$tool"
done

program() {
    found=$(command -v "$1" 2>/dev/null) && [ -x "$found" ] || printf 'absent %s\n' "$1"
}

port() {
    for inode in $(listeners "$1"); do
        printf 'taken %s %s\n' "$1" "$(holder "$inode")"
        break
    done
}
