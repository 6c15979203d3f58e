
if [ "$act" = look ]; then
    for n in $targets; do look_at "$n"; done
else
    # All of a stage at once, each with its whole grace.
    for n in $targets; do end_one "$n" & done
    wait
fi
