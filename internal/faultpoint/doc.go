// Package faultpoint marks the places where tests make a running appliance
// hang, crash or crawl. Without the build tag faults Here is empty and costs
// nothing. With it the file that WHISPER_APPLIANCE_FAULTS names says what
// happens, a line for each fault:
//
//	slot.activated crash
//	server.loop hang
//	engine.window slow 2s
//
// The place, what happens there, and for slow how long. A line holds for one
// visit and is taken out of the file before it has its effect, so that what
// comes up after a crash runs on. The package trusts that file, which is the
// only thing that it writes.
package faultpoint
