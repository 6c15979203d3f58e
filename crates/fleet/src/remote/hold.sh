# Runs one process until it ends, says who leads it, and takes away what it wrote: as a step of a job, which ends
# with its shell, so nothing is detached.
# Given: base, dir, own (what it writes is in this directory), program (copied there; or nothing); its words as
# arguments.

umask 077
mkdir -p "$base" 2>/dev/null
# Somebody else's directory of that name would see what we write.
if [ -L "$base" ] || [ ! -d "$base" ] || [ ! -O "$base" ]; then
    echo "$base is there and is not a directory of this user" >&2
    exit 73
fi
mkdir -p "$dir" || exit 73

# A signal is for the whole group: the process ends, and what it wrote is removed by what waits for it.
trap : HUP INT QUIT TERM
"$@" </dev/null >/dev/null 2>"$own.log" &
child=$!
stat_of $$
# pid, group, start time
printf 'started %s %s %s\n' "$$" "$pg" "$tk"
wait "$child"
status=$?
# A trapped signal ends the wait before the process.
while [ "$status" -gt 128 ] && kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
[ "$status" = 0 ] || tail -n 3 "$own.log" >&2
rm -rf "$own" "$own.log"
[ -z "$program" ] || rm -f "$program"
# Others of the deployment may have something in it.
rmdir "$dir" "$base" 2>/dev/null
exit "$status"
