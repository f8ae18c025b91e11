//go:build e2e

package conformance

import "strings"

func (b bad) isASR() bool {
	door, _, _ := strings.Cut(b.path, "?")
	return door == asr || door == detection
}

// badDialects are requests that the doors of other servers must refuse, each in
// its server's shape; limit is that of uploads, in bytes.
func badDialects(ref clip, limit int) []bad {
	recording := []part{ref.under("audio_file")}
	list := []bad{
		{name: "key", auth: "Bearer sk-wrong", parts: recording, status: 401},
		{name: "GET", method: "GET", kind: "none", status: 405},
		{name: "JSON", body: "{}", kind: "application/json", status: 422, says: "multipart/form-data"},
		{name: "no recording", parts: []part{field("a", "b")}, status: 422, says: "audio_file"},
		{name: "recording under another name", parts: ref.with(), status: 422, says: "audio_file"},
		{name: "two recordings", parts: append(recording, recording...), status: 422, says: "two"},
		{name: "empty", parts: []part{{"audio_file", "a.wav", ""}}, status: 422, says: "empty"},
		{name: "text", parts: []part{{"audio_file", "a.mp3", noSound}}, status: 422},
		{name: "picture", parts: []part{{"audio_file", "a.wav", png}}, status: 422},
		{name: "half a header", parts: []part{{"audio_file", "a.wav", wavHead(1, 2)[:20]}}, status: 422},
		{name: "cut off", kind: form, body: "--b\r\nContent-Disposition: form-data; name=\"audio_file\"; filename=\"a\"\r\n\r\nsound", status: 422, says: "ended"},
		{name: "too large", parts: []part{{"audio_file", "a.wav", strings.Repeat("x", limit+1)}}, status: 413, says: "larger"},
		{name: "field that belongs into the address", parts: append(recording, field("language", "en")), status: 422, says: "\\?language="},
		{name: "encode", path: "?encode=maybe", parts: recording, status: 422, says: "true or false"},
		{name: "half a sample", path: "?encode=false", parts: []part{{"audio_file", "a", "abc"}}, status: 422, says: "3 bytes"},
		{name: "FLAC as samples", path: "?encode=false", parts: []part{{"audio_file", "a", "fLaC" + noSound}}, status: 422, says: "FLAC"},
		{name: "too many samples", path: "?encode=false", parts: []part{{"audio_file", "a", strings.Repeat("\x00", limit+2)}}, status: 413, says: "larger"},
		{name: "query that cannot be read", path: "?language=%zz", parts: recording, status: 422, says: "query"},
	}
	for i := range list {
		b := list[i]
		b.name, b.path = "detection: "+b.name, detection+b.path
		list = append(list, b)
		list[i].name, list[i].path = "asr: "+list[i].name, asr+list[i].path
	}
	return append(append(list,
		bad{name: "asr: language", path: asr + "?language=xx", parts: recording, status: 422, says: "xx"},
		bad{name: "asr: language with a region", path: asr + "?language=pt-BR", parts: recording, status: 422, says: "leave out the region"},
		bad{name: "asr: output", path: asr + "?output=docx", parts: recording, status: 422, says: "docx.*txt"},
		bad{name: "asr: task", path: asr + "?task=sing", parts: recording, status: 422, says: "sing"},
		bad{name: "asr: long language", path: asr + "?language=" + strings.Repeat("x", 10_000), parts: recording, status: 422},
		bad{name: "detection: silence", path: detection, parts: []part{{"audio_file", "a.wav", string(asWAV(make([]byte, 64000)))}}, status: 422, says: "nobody speaks"},
	), badInferences(ref)...)
}

func badInferences(ref clip) []bad {
	list := []bad{
		{name: "no file", parts: []part{field("language", "en")}, status: 400, says: "file"},
		{name: "text", parts: []part{file("a.mp3", noSound)}, status: 400},
		{name: "JSON", body: "{}", kind: "application/json", status: 400, says: "multipart/form-data"},
		{name: "GET", method: "GET", kind: "none", status: 405},
		{name: "key", auth: "Bearer sk-wrong", parts: ref.with(), status: 401},
	}
	for name, value := range map[string]string{"response_format": "bogus", "language": "xx", "temperature": "hot", "temperature_inc": "3", "diarize": "true",
		"max_len": "42", "offset_t": "soon", "beam_size": "1000", "vad_threshold": "0.9", "colour": "blue", "no_speech_thold": "NaN"} {
		list = append(list, bad{name: name, parts: ref.with(field(name, value)), status: 400, says: name})
	}
	for i := range list {
		list[i].name, list[i].path = "inference: "+list[i].name, inference
	}
	return append(list, bad{name: "whisper.cpp's other door", path: "/load", parts: []part{field("model", "a.bin")}, status: 404})
}
