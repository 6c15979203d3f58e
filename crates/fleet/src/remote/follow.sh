# Sends the log of a process from byte $from (counted from 1) on, until the process has ended.
# Given: file, pid, ticks, from.

me=$$
stat_of "$me" && printf '%s %s\n' "$me" "$tk" > "$file.follow"
# Whoever started us going away is the end of us: nobody reads any more.
stat_of "$PPID"; parent=$PPID parent_ticks=$tk
tail -c "+$from" -f "$file.log" </dev/null 2>/dev/null &
tail_pid=$!
trap 'kill "$tail_pid" 2>/dev/null' EXIT
trap 'exit 0' HUP INT TERM PIPE
while is_alive "$pid" "$ticks" && is_same "$parent" "$parent_ticks"; do
    sleep 0.5
done
# What it wrote last may not have come through tail yet: the caller asks for the rest.
