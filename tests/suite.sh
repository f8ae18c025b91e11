#!/bin/bash
# Runs the suites of a test run, one after the other, and says how long each
# took and which tests were skipped.
# usage: suite.sh NAME=BUDGET[:COMMAND]…   (the budget in seconds, COMMAND for make; left out: NAME)
#
# A suite over its budget is told of and does not fail: the machine may be
# busy. One that takes three times its budget is ended and has failed. Ctrl-C
# ends the suite that runs and all it started.
set -u
passed=0 failed=0 over=0
summary=
begin=$SECONDS

WA_SKIPS=$(mktemp)
export WA_SKIPS
trap 'rm -f "$WA_SKIPS"' EXIT

# timeout and what it starts are a process group of their own, which a
# terminal's Ctrl-C does not reach; timeout hands TERM on to all of it.
suite_pid=
stop() {
	if [ -n "$suite_pid" ]; then
		kill -TERM "$suite_pid" 2>/dev/null
		wait "$suite_pid"
	fi
	echo "suites: stopped" >&2
	exit 130
}
trap stop INT TERM

for suite in "$@"; do
	name=${suite%%=*} rest=${suite#*=}
	budget=${rest%%:*} target=${rest#"$budget"}
	target=${target#:}
	echo "=== $name"
	started=$SECONDS
	# What a script puts into the background ignores Ctrl-C, and all that it
	# starts: tests that send it would wait for ever.
	env --default-signal=INT,QUIT timeout --kill-after=20 $((3 * budget)) \
		make --no-print-directory "${target:-$name}" </dev/null &
	suite_pid=$!
	if wait $suite_pid; then
		result=passed
		passed=$((passed + 1))
	else
		result=FAILED
		failed=$((failed + 1))
	fi
	suite_pid=
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
if [ -s "$WA_SKIPS" ]; then
	echo "skipped tests: $(sort -u "$WA_SKIPS" | wc -l)"
	sort -u "$WA_SKIPS" | sed 's/^/  /'
fi
echo "suites: $passed passed, $failed failed, $over over their budget"
[ $failed = 0 ]
