#!/bin/bash
# Runs the suites of a test run, one after the other, and says how long each took.
# usage: suite.sh NAME=BUDGET[:COMMAND]…   (the budget in seconds, COMMAND for make; left out: NAME)
#
# A suite over its budget is told of and does not fail: the machine may be
# busy. One that takes three times its budget is ended and has failed.
set -u
passed=0 failed=0 over=0
summary=
begin=$SECONDS
for suite in "$@"; do
	name=${suite%%=*} rest=${suite#*=}
	budget=${rest%%:*} target=${rest#"$budget"}
	target=${target#:}
	echo "=== $name"
	started=$SECONDS
	if timeout --kill-after=20 $((3 * budget)) make --no-print-directory "${target:-$name}"; then
		result=passed
		passed=$((passed + 1))
	else
		result=FAILED
		failed=$((failed + 1))
	fi
	took=$((SECONDS - started))
	note=
	if [ $took -gt "$budget" ]; then
		note=', over its budget'
		over=$((over + 1))
	fi
	echo "=== $name: $result in $took s (budget $budget s$note)"
	summary+=$(printf '  %-14s %-7s %5d s of %d%s' "$name" $result $took "$budget" "$note")$'\n'
done
printf '\n%s  all of it %d s\n' "$summary" $((SECONDS - begin))
echo "suites: $passed passed, $failed failed"
[ $failed = 0 ]
