//go:build whisper

// Package whisper is whisper.cpp: the one package that crosses into C. It
// loads the compute backends, models and speech detectors, and decodes one
// window of PCM at a time in each of a model's states. It trusts whisper.cpp with nothing that matters to
// others: a bad model file or exhausted memory may abort the whole process,
// which is why only the engine imports it. It reads model files and writes
// nothing.
//
// The build tag "whisper" stands for the engine runtime (make engine-runtime):
// without its headers and libraries there is nothing to compile.
package whisper

/*
#cgo CFLAGS: -I${SRCDIR}/../../build/engine-runtime/include -O2
#cgo LDFLAGS: -L${SRCDIR}/../../build/engine-runtime/lib -lwhisper -lggml -lggml-base -lm -Wl,--allow-shlib-undefined
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"unsafe"

	"whisper-appliance/internal/engine"
)

// Backend is whisper.cpp with its compute backends loaded.
type Backend struct {
	name string
}

// Open loads every compute backend in dir and lets ggml choose the best for
// this CPU. whisper.cpp aborts where there is none, so that is an error here.
func Open(dir string) (*Backend, error) {
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	C.wa_quiet()
	C.wa_return_large_buffers()
	C.ggml_backend_load_all_from_path(path)
	if C.ggml_backend_dev_count() == 0 {
		return nil, fmt.Errorf("no compute backend in %s fits this machine (%s)", dir, runtime.GOARCH)
	}
	return &Backend{name: describeDevices()}, nil
}

var cpuBackend = regexp.MustCompile(`libggml-cpu-?([a-z0-9_.]*)\.so`)

// describeDevices lists ggml's devices, the CPU with the level chosen for it.
// ggml tells that level to nobody, but its library is mapped.
func describeDevices() string {
	level := ""
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		if m := cpuBackend.FindSubmatch(maps); m != nil {
			level = string(m[1])
		}
	}
	var names []string
	for i := range C.ggml_backend_dev_count() {
		dev := C.ggml_backend_dev_get(i)
		name := C.GoString(C.ggml_backend_dev_name(dev))
		if name == "CPU" && level != "" {
			name += " (" + level + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// Describe says which whisper.cpp this is and what it computes with.
func (b *Backend) Describe() engine.Description {
	return engine.Description{
		Whisper: C.GoString(C.whisper_version()),
		Backend: b.name,
		System:  strings.TrimSpace(C.GoString(C.whisper_print_system_info())),
	}
}

// leastModel is well below any model's size: tiny at 4 bits has 25 MB.
const leastModel = 1 << 20

// Load reads a model into memory.
func (b *Backend) Load(path string) (engine.LoadedModel, error) {
	// whisper.cpp takes a file that ends after its magic for an empty model.
	if st, err := os.Stat(path); err == nil && st.Size() < leastModel {
		return nil, &engine.Failure{Code: engine.CodeBadModel, Message: fmt.Sprintf("the model file has %d bytes: no model is that small", st.Size())}
	}
	defer onThread()()
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	params := C.whisper_context_default_params()
	ctx := C.whisper_init_from_file_with_params_no_state(cpath, params)
	if ctx == nil {
		return nil, &engine.Failure{Code: engine.CodeBadModel, Message: "whisper.cpp refused the model file: " + lastLog()}
	}
	return &model{ctx: ctx}, nil
}

// onThread has what whisper.cpp says from now on be known to lastLog, which is
// a thread's own, until release is called.
func onThread() (release func()) {
	runtime.LockOSThread()
	C.wa_forget_log()
	return runtime.UnlockOSThread
}

func lastLog() string {
	if s := strings.TrimSpace(C.GoString(C.wa_last_log())); s != "" {
		return s
	}
	return "it gave no reason"
}

// LoadVAD reads a Silero speech detector.
func (b *Backend) LoadVAD(path string, threads int) (engine.LoadedVAD, error) {
	defer onThread()()
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	params := C.whisper_vad_default_context_params()
	if threads > 0 {
		params.n_threads = C.int(threads)
	}
	v := C.whisper_vad_init_from_file_with_params(cpath, params)
	if v == nil {
		return nil, &engine.Failure{Code: engine.CodeBadModel, Message: "whisper.cpp refused the speech detector: " + lastLog()}
	}
	return &vad{ctx: v}, nil
}
