// Package e2e tests the packaged appliance as people have it: installed from
// its .deb into machines with systemd as PID 1, with the real model. Its tests
// carry the build tag e2e and need root; `make e2e` runs them. Each test
// stands alone; those that leave the machine as they found it share one.
package e2e
