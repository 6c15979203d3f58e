# What a host is, and whether file $path of $size bytes with SHA-256 $digest is there too.
# Behind look.sh, which says boot and base.

printf 'system %s\n' "$(uname -sm)"
digest_of() { sha256sum "$1" 2>/dev/null | { read -r sum rest; echo "$sum"; }; }
if [ -f "$path" ] && [ -x "$path" ] && [ "$(wc -c < "$path")" -eq "$size" ] &&
    [ "$(digest_of "$path")" = "$digest" ]; then
    echo 'has it'
fi
