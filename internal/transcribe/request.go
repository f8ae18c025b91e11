package transcribe

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/transcript"
)

// Request is what a door was asked for, as text and unchecked. Every door
// makes its jobs of it, so that each value means the same everywhere.
type Request struct {
	Model       string // catalogue name; "" = the one in use
	Language    string // code or English name; "" = as the settings say; "auto" = detect
	Prompt      string
	Temperature string
	Task        transcript.Task // "" = Transcribe
	Words       bool
}

// Job checks q against the models that are there. The caller adds Audio and
// Name. Errors are faults that name the field.
func (q Request) Job(models *model.Store, c *config.Config) (Job, error) {
	asked, err := json.Marshal(q)
	if err != nil {
		return Job{}, err
	}
	job := Job{
		Asked: string(asked),
		Task:  cmp.Or(q.Task, transcript.Transcribe), Prompt: q.Prompt, Words: q.Words,
		BeamSize: c.Transcription.BeamSize, BestOf: c.Transcription.BestOf, Threads: c.Engine.Threads,
		ByLoudness: c.VAD.Detector == "loudness", Threshold: float64(c.VAD.Threshold) / 100,
		FullContext: !c.Transcription.ShortPass, OneLook: !c.Transcription.SecondLook,
		PreviousText: c.Transcription.CarryText, EachLanguage: c.Transcription.Detect == "window",
	}
	if !utf8.ValidString(q.Prompt) || strings.ContainsRune(q.Prompt, 0) {
		return job, fault.New(fault.BadInput, "invalid_value", "the prompt is no text: it must be UTF-8 without NUL").On("prompt")
	}
	m, err := FindModel(models, cmp.Or(q.Model, c.Models.Default))
	if err != nil {
		return job, err
	}
	job.Model, job.ModelFile = m.Name, m.File
	if job.Language, err = m.language(cmp.Or(q.Language, c.Transcription.Language), job.Task); err != nil {
		return job, err
	}
	job.Temperature, err = temperature(q.Temperature)
	return job, err
}

func temperature(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v <= 1) { // NaN too
		return 0, fault.New(fault.BadInput, "invalid_value", "temperature is %q; it must be a number from 0 to 1", fault.Short(s)).On("temperature")
	}
	return v, nil
}

// Model is an installed model.
type Model struct {
	Name         string // in the catalogue, or after the file
	File         string // in the model directory
	Multilingual bool
	Languages    []string // codes; empty where the catalogue does not know the model
}

// FindModel finds an installed model by its name or alias. The error is
// model.Store.Resolve's.
func FindModel(models *model.Store, name string) (Model, error) {
	file, err := models.Resolve(name)
	if err != nil {
		return Model{}, err
	}
	if e, err := model.Lookup(name); err == nil {
		return Model{Name: e.Name, File: file, Multilingual: e.Multilingual(), Languages: e.Languages}, nil
	}
	path, err := models.Path(name)
	if err != nil {
		return Model{}, err
	}
	info, err := model.Inspect(path)
	if err != nil { // the caller is not to blame for a file that lies here
		return Model{}, damaged(name, err)
	}
	return Model{Name: name, File: file, Multilingual: info.Multilingual}, nil
}

// damaged is a model file that is here and cannot be used.
func damaged(name string, err error) error {
	return fault.New(fault.Unavailable, "model_damaged", "the model %s cannot be loaded", name).Because(err).
		Try("`whisper-appliance models verify %s` says what is wrong with it; then remove and fetch it anew", name)
}

// language is the code for the engine; "" has it detect the language.
func (m Model) language(asked string, task transcript.Task) (string, error) {
	code := ""
	if asked != "" && asked != "auto" {
		var err error
		if code, err = transcript.LanguageCode(asked); err != nil {
			return "", err
		}
	}
	switch {
	case m.Multilingual && code != "" && len(m.Languages) > 0 && !slices.Contains(m.Languages, code):
		return "", fault.New(fault.BadInput, "invalid_value", "the model %s does not know %s", m.Name, transcript.LanguageName(code)).
			On("language").Try("use a model that does, such as large-v3")
	case m.Multilingual:
		return code, nil
	case task == transcript.Translate:
		return "", fault.New(fault.BadInput, "invalid_value", "the model %s understands English only and cannot translate", m.Name).
			On("model").Try("use a model without .en")
	case code != "" && code != "en":
		return "", fault.New(fault.BadInput, "invalid_value", "the model %s understands English only, not %s", m.Name, transcript.LanguageName(code)).
			On("language").Try("use a model without .en")
	}
	return "en", nil
}
