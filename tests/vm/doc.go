// Package vm holds the tests of the package in a virtual machine: what a
// container has not got. There limits of memory are real, the kernel has its own
// security modules, and the plug can be pulled. They carry the build tag e2e and
// skip where there is no qemu or no root; below them is what they are made with:
//
//	machine     boots Debian in qemu, runs commands in it, pulls its plug
//	disk        a disk that forgets what was not flushed
//	agent       the program in the machine that does what a test asks for
//	audit       looks at the appliance's database in the machine
//	hearing     what the fake engine hears in sound
//	fakeengine  an engine that an emulated processor can bear
package vm
