# Removes what scalebeam wrote on this host for one run.
# Given: base, dir.

for note in "$dir"/*.follow; do
    [ -f "$note" ] || continue
    read -r pid ticks < "$note"
    # Cut off from us by a broken link, it would wait for the end of the connection.
    is_alive "$pid" "$ticks" && kill -TERM "$pid" 2>/dev/null
done
rm -rf "$dir"
rmdir "$base" 2>/dev/null
[ ! -e "$dir" ] || { echo "$dir could not be removed" >&2; exit 1; }
