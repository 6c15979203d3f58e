# The rest of a log, from byte $from on, and how the process ended, as the last line of standard error.
# Given: file, from, pid, ticks.

tail -c "+$from" "$file.log" </dev/null
if is_alive "$pid" "$ticks"; then
    echo lives >&2
else
    printf 'exit %s\n' "$(cat "$file.exit" 2>/dev/null)" >&2
fi
