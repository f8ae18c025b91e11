// Package faults holds the tests of what an update does when something goes
// wrong at any moment, and below it what they are made with:
//
//	cut          runs a command and stops it at its k-th change of the disk
//	disk         a file system that loses its power, fills up, turns read-only
//	fakeserver   a server that misbehaves as its release says
//	fakerelease  releases around it
//	supervise    systemd's part: sockets, readiness, watchdog, restarts, the gate
//
// Its tests carry the build tag e2e, and skip where they are not root. They
// leave no process, no mount and no loop device behind.
package faults
