// Package conformance is the proof that clients made for OpenAI's API work
// against a running appliance: its official libraries, unmodified, from npm
// (openai.test.mjs) and for Go (openai_test.go), with answers that take minutes,
// too (long_test.go, with an appliance of its own); that the doors of other servers
// give the same text (dialects_test.go) and so do jobs and the command line
// (exact_test.go); that nothing is heard where nobody speaks (nospeech_test.go); and
// that bad requests each get their own status and message (badinput_test.go,
// baddialects_test.go). It trusts nothing that the appliance says about itself, and
// writes into temporary directories alone. "make conformance" starts an appliance
// and runs it all.
//
// The environment says where the appliance is:
//
//	WA_URL         its address, such as http://127.0.0.1:5001
//	WA_KEY         an API key with the scope transcribe
//	WA_MAX_UPLOAD  its upload limit in bytes; keep it small, over it is sent
//	WA_STATE       its state directory
//	WA_PID         process id of the server
//
// The last three are for badinput_test.go alone. Where WA_THOROUGH is set, too, what
// takes minutes is added. The appliance must run the model tiny, trust no proxy and
// be open to this machine without a key.
package conformance
