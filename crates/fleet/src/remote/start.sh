# Starts one process, detached, in a session of its own, and says who it is.
# Given: base, dir, file, write_files, and the variables of the process, exported; its words as arguments.

umask 077
mkdir -p "$base" 2>/dev/null
# Somebody else's directory of that name would see what we write.
if [ -L "$base" ] || [ ! -d "$base" ] || [ ! -O "$base" ]; then
    echo "$base is there and is not a directory of this user" >&2
    exit 73
fi
mkdir -p "$dir" && : > "$file.log" && write_files || exit 73
rm -f "$file.id" "$file.exit"

# The one that waits leads the group, ignores what is sent to the group, and outlives the program only
# to write down how it ended.
setsid sh -c '
    f=$1; shift
    read -r line < /proc/$$/stat
    printf "%s\n" "$line" > "$f.id.new" && mv "$f.id.new" "$f.id" || exit 73
    "$@" &
    trap "" HUP INT QUIT TERM
    wait $!
    printf "%s\n" "$?" > "$f.exit.new" && mv "$f.exit.new" "$f.exit"
' scalebeam "$file" "$@" </dev/null >"$file.log" 2>&1 &

tries=0
while [ ! -s "$file.id" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || { tail -n 3 "$file.log" >&2; echo 'it did not come up' >&2; exit 70; }
    sleep 0.05
done
read -r line < "$file.id"
set -- "${line%% *}" ${line##*) }
# pid, group, start time
printf 'started %s %s %s\n' "$1" "$4" "${21}"
