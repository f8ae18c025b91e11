package main

import (
	"crypto/tls"
	"errors"
	"os"

	"whisper-appliance/internal/appliance"
	"whisper-appliance/internal/config"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/transcript"
)

// checkParts holds settings against what they name: files, certificates,
// models, languages. Package config knows their form alone.
func (a *app) checkParts(c *config.Config) error {
	return errors.Join(
		checkTLS(c.TLS),
		a.checkModel(c),
		checkLanguage(c.Transcription.Language),
		checkFile("decode.ffmpeg", c.Decode.FFmpeg),
		checkFile("models.directory", c.Models.Directory),
	)
}

func checkTLS(c config.TLS) error {
	if c.Certificate == "" && c.Key == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(c.Certificate, c.Key); err != nil {
		return badSetting("tls.certificate", "the certificate %s with the key %s cannot be used", c.Certificate, c.Key).Because(err)
	}
	return nil
}

// checkModel: a model that the catalogue knows may be fetched later; one that
// neither it nor the directory knows will never come.
func (a *app) checkModel(c *config.Config) error {
	name := c.Models.Default
	if _, err := model.Lookup(name); err == nil {
		return nil
	}
	if _, err := appliance.Store(a.paths, c).Resolve(name); err != nil {
		return badSetting("models.default", "there is no model called %q", name).Because(err).Try("%s", fault.Hint(err))
	}
	return nil
}

func checkLanguage(name string) error {
	if name == "" || name == "auto" {
		return nil
	}
	if _, err := transcript.LanguageCode(name); err != nil {
		return badSetting("transcription.language", "%q is no language that Whisper knows", name).Try("%s", fault.Hint(err))
	}
	return nil
}

func checkFile(key, path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return badSetting(key, "%s cannot be used", key).Because(err)
	}
	return nil
}

func badSetting(key, format string, args ...any) *fault.Error {
	return fault.New(fault.BadInput, "bad_config", format, args...).On(key)
}
