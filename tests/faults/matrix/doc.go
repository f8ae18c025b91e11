// Package matrix holds the fault matrix: a real transaction of package update,
// on real releases of a fake server, with one fault in one of its steps, for
// every step and every fault; and the same update a hundred times in a row.
//
// Each updater is a process of its own, which is killed or cut off for real. Its
// disks are two file systems that lose their power, fill up and fail; systemd
// is played by tests/faults/supervise. The tests need root and carry the build
// tags e2e and faults.
package matrix
