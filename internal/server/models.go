package server

import (
	"context"
	"net/http"
	"os"
	"slices"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/transcribe"
)

// openAIModels are OpenAI's names; programs have them built in. Each stands
// for whatever model is in use.
var openAIModels = []string{"whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe"}

// modelName is the model that a request's name stands for, "" for the one in
// use. That it is installed is checked here, to tell apart a caller who named
// a model that is not here and an appliance that has none.
func (s *Server) modelName(asked string) (string, error) {
	if asked == "" || slices.Contains(openAIModels, asked) {
		current := s.Config().Models.Default
		if _, err := s.Models.Resolve(current); err != nil {
			return "", s.noModel(err)
		}
		return current, nil
	}
	if _, err := s.Models.Resolve(asked); err != nil {
		e := fault.New(fault.NotFound, "model_not_found", "%v", err).On("model")
		e.Hint = fault.Hint(err)
		return "", e
	}
	return asked, nil
}

// noModel is for an appliance whose model in use is not there; it may have others.
func (s *Server) noModel(err error) error {
	f := fault.New(fault.Unavailable, "model_not_installed", "the model in use is missing: %v", err).Try("%s", fault.Hint(err))
	all, listing := s.Models.List()
	i := slices.IndexFunc(all, func(l model.Listed) bool { return l.Kind == model.Speech && l.State == model.Installed })
	if listing != nil || i < 0 {
		return f
	}
	return f.Try("%s, or use one that is here: `whisper-appliance models use %s`", f.Hint, all[i].Name)
}

// ModelObject is OpenAI's model object.
type ModelObject struct {
	ID      string `json:"id" doc:"Name to give as model."`
	Object  string `json:"object" enum:"model"`
	Created int64  `json:"created" doc:"When the file was placed, Unix seconds."`
	OwnedBy string `json:"owned_by"`
}

// ModelList is OpenAI's list of models.
type ModelList struct {
	Object string        `json:"object" enum:"list"`
	Data   []ModelObject `json:"data"`
}

func (s *Server) listModels(context.Context, *struct{}) (*body[ModelList], error) {
	list := ModelList{Object: "list", Data: []ModelObject{}}
	all, err := s.Models.List()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.Kind == model.Speech && m.State == model.Installed {
			list.Data = append(list.Data, s.modelObject(m.Name, m.Name))
		}
	}
	current := s.Config().Models.Default
	if _, err := s.Models.Resolve(current); err == nil {
		for _, alias := range openAIModels {
			list.Data = append(list.Data, s.modelObject(alias, current))
		}
	}
	return answerWith(list), nil
}

// modelObject describes the model name under id.
func (s *Server) modelObject(id, name string) ModelObject {
	o := ModelObject{ID: id, Object: "model", OwnedBy: "whisper-appliance"}
	if path, err := s.Models.Path(name); err == nil {
		if st, err := os.Stat(path); err == nil {
			o.Created = st.ModTime().Unix()
		}
	}
	return o
}

type modelInput struct {
	Model string `path:"model" doc:"Name of a model, or one of OpenAI's names."`
}

func (s *Server) getModel(_ context.Context, in *modelInput) (*body[ModelObject], error) {
	name, err := s.modelName(in.Model)
	if err != nil {
		return nil, err
	}
	return answerWith(s.modelObject(in.Model, name)), nil
}

// UseModel names the model to use.
type UseModel struct {
	Model string `json:"model" minLength:"1" maxLength:"128" doc:"Name of an installed model."`
}

// useModel makes a model the one in use, for this and every later start.
func (s *Server) useModel(_ context.Context, in *struct{ Body UseModel }) (*body[UseModel], error) {
	m, err := transcribe.FindModel(s.Models, in.Body.Model)
	if err != nil {
		return nil, err
	}
	if err := s.SaveSetting("models.default", m.Name); err != nil {
		return nil, err
	}
	if s.Components != nil {
		s.Components.Recheck(partModels)
	}
	return answerWith(UseModel{Model: m.Name}), nil
}

// unload has the engine give the model's memory back. Where no engine runs
// none holds a model, and asking would start one.
func (s *Server) unload(w http.ResponseWriter, r *http.Request) error {
	if s.EngineRunning != nil && !s.EngineRunning() {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err := s.Engine.Unload(r.Context()); err != nil {
		return fault.New(fault.Unavailable, "engine_down", "the engine does not answer").Because(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
