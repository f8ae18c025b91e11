//go:build e2e

package conformance

import (
	"fmt"
	"strings"
)

// The doors that take recordings.
const (
	transcriptions = "/v1/audio/transcriptions"
	translations   = "/v1/audio/translations"
	original       = "/transcribe"
	live           = "/api/transcribe-live"
)

// bad is a request that must be refused, and how. Zero values of the first
// part make a good request without a file: POST to transcriptions, with a key.
type bad struct {
	name   string
	method string
	path   string
	auth   string   // Authorization; "" = the good key, "none" = no header
	header []string // further lines
	parts  []part   // of the form
	body   string   // instead of parts, with its own kind
	kind   string   // Content-Type; "" = the form's, "none" = no header
	length int      // Content-Length; 0 = the truth, chunked = none
	cut    int      // bytes of the body that are not sent before the client ends its side

	status int
	param  string // "" = not looked at; a name[] counts as name
	code   string // "" = not looked at
	says   string // regular expression on message and hint
	silent bool   // 200 with an empty text is an honest answer too
}

const chunked = -1

// part is a field, or a file where file is set.
type part struct{ name, file, value string }

func field(name, value string) part { return part{name: name, value: value} }

func file(name, content string) part { return part{"file", name, content} }

func audio(name, content string) part { return part{"audio", name, content} }

// with is a good recording and the fields given.
func (c clip) with(parts ...part) []part { return append(parts, file(c.name, string(c.data))) }

const form = "multipart/form-data; boundary=b"

var noSound = strings.Repeat("this is a text and no sound\n", 50)

// wavHead is a WAV header that promises samples bytes and has channels.
func wavHead(channels, samples byte) string {
	return "RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00" + string([]byte{channels, 0}) +
		"\x80\x3e\x00\x00\x00\x7d\x00\x00\x02\x00\x10\x00data" + string([]byte{samples, 0, 0, 0})
}

const png = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89" +
	"\x00\x00\x00\nIDATx\x9cc\x00\x01\x00\x00\x05\x00\x01\r\n-\xb4\x00\x00\x00\x00IEND\xaeB`\x82"

// badFields are wrong, missing and doubled fields.
func badFields(ref clip) []bad {
	long := strings.Repeat("x", 10_000)
	return []bad{
		{name: "no file", parts: []part{field("model", "whisper-1")}, status: 400, param: "file", says: "file"},
		{name: "file is a plain field", parts: []part{field("file", noSound)}, status: 400, param: "file"},
		{name: "file under the wrong name", parts: []part{audio("a.wav", string(ref.data))}, status: 400, param: "audio", says: "audio"},
		{name: "unknown field", parts: ref.with(field("colour", "blue")), status: 400, param: "colour", says: "colour"},
		{name: "misspelled field", parts: ref.with(field("langauge", "en")), status: 400, param: "langauge", says: "language"},
		{name: "field name with NUL", parts: ref.with(field("mo\x00del", "x")), status: 400},
		{name: "part without a name", kind: form, body: "--b\r\n\r\nx\r\n--b--\r\n", status: 400},
		{name: "model twice", parts: ref.with(field("model", "tiny"), field("model", "tiny")), status: 400, param: "model", says: "model"},
		{name: "language twice", parts: ref.with(field("language", "en"), field("language", "de")), status: 400, param: "language"},
		{name: "two files", parts: append(ref.with(), ref.with()...), status: 400, param: "file"},
		{name: "model is a file", parts: ref.with(part{"model", "model.txt", "tiny"}), status: 400, param: "model"},
		{name: "unknown format", parts: ref.with(field("response_format", "yaml")), status: 400, param: "response_format", says: "yaml"},
		{name: "format that takes speakers", parts: ref.with(field("response_format", "diarized_json")), status: 400, param: "response_format"},
		{name: "temperature is a word", parts: ref.with(field("temperature", "hot")), status: 400, param: "temperature", says: "hot.*0 to 1"},
		{name: "temperature above 1", parts: ref.with(field("temperature", "1.5")), status: 400, param: "temperature", says: "1\\.5.*0 to 1"},
		{name: "temperature below 0", parts: ref.with(field("temperature", "-0.1")), status: 400, param: "temperature"},
		{name: "temperature is not a number", parts: ref.with(field("temperature", "NaN")), status: 400, param: "temperature"},
		{name: "temperature beyond all bounds", parts: ref.with(field("temperature", "1e400")), status: 400, param: "temperature"},
		{name: "unknown language", parts: ref.with(field("language", "xx")), status: 400, param: "language", says: "xx"},
		{name: "language by another name", parts: ref.with(field("language", "englisch")), status: 400, param: "language", says: "ISO 639"},
		{name: "very long language", parts: ref.with(field("language", long)), status: 400, param: "language"},
		{name: "language with NUL", parts: ref.with(field("language", "en\x00")), status: 400, param: "language"},
		{name: "stream is no boolean", parts: ref.with(field("stream", "maybe")), status: 400, param: "stream", says: "maybe.*true or false"},
		{name: "stream of subtitles", parts: ref.with(field("stream", "true"), field("response_format", "srt")), status: 400, param: "response_format"},
		{name: "granularities without verbose_json", parts: ref.with(field("timestamp_granularities[]", "word"), field("response_format", "json")),
			status: 400, param: "timestamp_granularities", says: "verbose_json"},
		{name: "unknown granularity", parts: ref.with(field("timestamp_granularities[]", "sentence"), field("response_format", "verbose_json")),
			status: 400, param: "timestamp_granularities", says: "sentence.*word or segment"},
		{name: "unknown include", parts: ref.with(field("include[]", "waveform")), status: 400, param: "include", says: "waveform"},
		{name: "logprobs in subtitles", parts: ref.with(field("include[]", "logprobs"), field("response_format", "srt")), status: 400, param: "include"},
		{name: "chunking is broken JSON", parts: ref.with(field("chunking_strategy", `{"type":`)), status: 400, param: "chunking_strategy"},
		{name: "unknown chunking", parts: ref.with(field("chunking_strategy", "sometimes")), status: 400, param: "chunking_strategy", says: "auto"},
		{name: "chunking with parameters", parts: ref.with(field("chunking_strategy", `{"type":"server_vad","threshold":0.4}`)),
			status: 400, param: "chunking_strategy", says: "server_vad"},
		{name: "unknown model", parts: ref.with(field("model", "no-such-model")), status: 404, param: "model", code: "model_not_found", says: "no-such-model"},
		{name: "model is a path", parts: ref.with(field("model", "../../../../etc/passwd")), status: 404, param: "model", code: "model_not_found"},
		{name: "model with NUL", parts: ref.with(field("model", "tiny\x00.bin")), status: 404, param: "model", code: "model_not_found"},
		{name: "very long model", parts: ref.with(field("model", long)), status: 404, param: "model", code: "model_not_found"},
		{name: "prompt of a megabyte", parts: ref.with(field("prompt", strings.Repeat("word ", 1<<20/5))), status: 400, param: "prompt", says: "prompt.*\\d"},
		{name: "a thousand fields", parts: ref.with(many(1000)...), status: 400},

		{name: "translation: no file", path: translations, parts: []part{field("model", "whisper-1")}, status: 400, param: "file"},
		{name: "translation: unknown format", path: translations, parts: ref.with(field("response_format", "yaml")), status: 400, param: "response_format"},
		{name: "translation: language", path: translations, parts: ref.with(field("language", "de")), status: 400, param: "language"},
		{name: "translation: stream", path: translations, parts: ref.with(field("stream", "true")), status: 400, param: "stream"},
		{name: "translation: temperature", path: translations, parts: ref.with(field("temperature", "2")), status: 400, param: "temperature"},
		{name: "translation: unknown model", path: translations, parts: ref.with(field("model", "no-such-model")), status: 404, param: "model"},

		{name: "original: no recording", path: original, parts: []part{field("language", "en")}, status: 400, says: "audio"},
		{name: "original: OpenAI's name of the file", path: original, parts: ref.with(), status: 400, says: "audio"},
		{name: "original: unknown field", path: original, parts: []part{audio("a.wav", string(ref.data)), field("colour", "blue")}, status: 400, says: "colour"},
		{name: "live: unknown language", path: live, parts: []part{audio("a.wav", string(ref.data)), field("language", "xx")}, status: 400, says: "xx"},
		{name: "live: no recording", path: live, parts: []part{field("language", "en")}, status: 400, says: "audio"},
	}
}

func many(n int) (parts []part) {
	for i := range n {
		parts = append(parts, field(fmt.Sprintf("timestamp_granularities[%d]", i), "word"))
	}
	return parts
}

// badBodies are forms that are none, or not whole.
func badBodies(ref clip) []bad {
	whole := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n" + string(ref.data) + "\r\n--b--\r\n"
	return []bad{
		{name: "JSON", body: `{"file":"a.wav","model":"whisper-1"}`, kind: "application/json", status: 400, says: "multipart/form-data"},
		{name: "URL-encoded", body: "model=whisper-1", kind: "application/x-www-form-urlencoded", status: 400, says: "multipart/form-data"},
		{name: "the bare recording", body: string(ref.data), kind: "audio/wav", status: 400, says: "multipart/form-data"},
		{name: "no content type", body: "x", kind: "none", status: 400, says: "multipart/form-data"},
		{name: "nonsense as content type", body: "x", kind: ";;;", status: 400, says: "multipart/form-data"},
		{name: "no boundary named", body: whole, kind: "multipart/form-data", status: 400},
		{name: "another boundary named", body: whole, kind: "multipart/form-data; boundary=other", status: 400},
		{name: "no body", body: "", kind: form, status: 400},
		{name: "last boundary missing", body: strings.TrimSuffix(whole, "\r\n--b--\r\n"), kind: form, status: 400},
		{name: "client ends its side in the middle", body: whole, kind: form, cut: len(whole) / 2, status: 400, says: "ended|incomplete|cut"},
		{name: "Content-Length too small", body: whole, kind: form, length: len(whole) / 2, status: 400},
		{name: "broken chunks", body: "zz\r\nnot a chunk", kind: form, length: chunked, status: 400},
		{name: "original: JSON", path: original, body: `{}`, kind: "application/json", status: 400, says: "multipart/form-data"},
	}
}

// badFiles are files that hold no sound, or harm.
func badFiles() []bad {
	list := []bad{}
	for _, f := range []struct{ what, name, content string }{
		{"empty", "a.wav", ""},
		{"text as mp3", "a.mp3", noSound},
		{"picture", "a.png", png},
		{"picture as wav", "a.wav", png},
		{"playlist of a local file", "a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n"},
		{"playlist of a URL", "a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"},
		{"playlist as wav", "a.wav", "#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n"},
		{"concatenation script", "a.ffconcat", "ffconcat version 1.0\nfile /etc/passwd\n"},
		{"session description", "a.sdp", "v=0\nc=IN IP4 127.0.0.1\nm=audio 9999 RTP/AVP 0\n"},
		{"half a WAV header", "a.wav", wavHead(1, 2)[:20]},
		{"WAV without channels", "a.wav", wavHead(0, 2) + "\x00\x00"},
		{"noise as m4a", "a.m4a", strings.Repeat("\xde\xad\xbe\xef", 500)},
		{"mp4 without an index", "a.mp4", "\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2\x00\x00\x01\x00mdat" + strings.Repeat("\x00", 400)},
		{"name that climbs", "../../../../etc/passwd", noSound},
		{"very long name", strings.Repeat("x", 5000) + ".wav", noSound},
		{"name with an encoded line break", "a%0d%0aX-Evil: 1.wav", noSound},
	} {
		list = append(list, bad{name: "file: " + f.what, parts: []part{file(f.name, f.content)}, status: 400, param: "file"})
	}
	return append(list,
		bad{name: "file: name with NUL", parts: []part{file("a\x00.wav", noSound)}, status: 400},
		bad{name: "file: WAV of 0 samples", parts: []part{file("a.wav", wavHead(1, 0))}, status: 400, param: "file", silent: true},
		bad{name: "translation: text", path: translations, parts: []part{file("a.mp3", noSound)}, status: 400, param: "file"},
		bad{name: "original: text", path: original, parts: []part{audio("a.mp3", noSound)}, status: 400},
		bad{name: "live: empty", path: live, parts: []part{audio("a.webm", "")}, status: 400},
		bad{name: "stream: text", parts: []part{field("stream", "true"), file("a.mp3", noSound)}, status: 400, param: "file"},
	)
}

// overLimit are uploads larger than the limit of limit bytes.
func overLimit(limit int) []bad {
	says := fmt.Sprint(limit)
	big := file("big.wav", strings.Repeat("\x00", limit+1))
	body, _ := encode([]part{big})
	return []bad{
		{name: "one byte over the limit", parts: []part{big}, status: 413, says: says},
		{name: "over the limit, length unknown", kind: form, length: chunked,
			body: fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body), status: 413, says: says},
		{name: "far over the limit, refused at once", parts: []part{file("a.wav", "x")}, length: 3*limit + 1<<24, status: 413, says: says},
		{name: "original: over the limit", path: original, parts: []part{audio("a.wav", big.value)}, status: 413, says: says},
	}
}

// badRoutes are wrong methods, paths and keys.
func badRoutes(ref clip) []bad {
	list := []bad{
		{name: "GET of a POST door", method: "GET", path: transcriptions, kind: "none", status: 405},
		{name: "PUT of a POST door", method: "PUT", path: original, kind: "none", status: 405},
		{name: "POST of a GET door", method: "POST", path: "/v1/models", kind: "none", status: 405},
		{name: "DELETE of a model", method: "DELETE", path: "/v1/models/tiny", kind: "none", status: 405},
		{name: "unknown path in v1", method: "GET", path: "/v1/nothing", kind: "none", status: 404},
		{name: "OpenAI's other doors", path: "/v1/audio/speech", kind: "application/json", body: "{}", status: 404},
		{name: "unknown path", method: "GET", path: "/api/nothing", kind: "none", status: 404},
		{name: "unknown model", method: "GET", path: "/v1/models/x", kind: "none", status: 404, param: "model", code: "model_not_found"},
		{name: "model that climbs", method: "GET", path: "/v1/models/..%2f..%2fetc%2fpasswd", kind: "none", status: 404},
	}
	// "Bearer" alone is none of them: clients that were given an empty key send it, and have none.
	for _, header := range []string{"Token abc", "Basic-ish xyz", "Bearer sk-wrong", "sk-wrong", "Bearer " + strings.Repeat("x", 5000)} {
		list = append(list, bad{name: "Authorization: " + header[:min(20, len(header))], auth: header, parts: ref.with(), status: 401})
	}
	for _, path := range []string{transcriptions, translations, original, live} {
		list = append(list, bad{name: "wrong key at " + path, path: path, auth: "Bearer sk-wrong", parts: ref.with(), status: 401, code: "invalid_api_key"})
	}
	for _, path := range []string{"/v1/models", "/v1/models/tiny", "/api/status"} {
		list = append(list, bad{name: "wrong key at " + path, method: "GET", path: path, kind: "none", auth: "Bearer sk-wrong", status: 401})
	}
	for _, header := range []string{"X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 10.0.0.1, 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1", "X-Forwarded-Host: localhost"} {
		list = append(list, bad{name: "no key, " + header, auth: "none", header: []string{header}, parts: ref.with(), status: 401})
	}
	return list
}
