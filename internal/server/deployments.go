package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"whisper-appliance/internal/deployment"
)

// mostRecords is how many deployments are learned from.
const mostRecords = 1000

// digest is short enough for an id of an event.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// howMany is the query of lists.
type howMany struct {
	Limit int `query:"limit" default:"20" minimum:"1" maximum:"1000" doc:"How many, the newest first."`
}

// UpdateHistory is the newest deployments.
type UpdateHistory struct {
	Records []deployment.Record `json:"records"`
}

// Deployments is the record and what can be learned from it.
type Deployments struct {
	Records  []deployment.Record `json:"records" doc:"The newest, as many as were asked for."`
	Analysis deployment.Analysis `json:"analysis" doc:"Of the newest 1000."`
}

// records are the newest deployments.
func (s *Server) records(most int) ([]deployment.Record, error) {
	u, err := s.updater()
	if err != nil {
		return nil, err
	}
	list, err := u.Records(most)
	return append([]deployment.Record{}, list...), unread(err)
}

func (s *Server) updateHistory(_ context.Context, in *howMany) (*body[UpdateHistory], error) {
	list, err := s.records(in.Limit)
	if err != nil {
		return nil, err
	}
	return answerWith(UpdateHistory{list}), nil
}

func (s *Server) deployments(_ context.Context, in *howMany) (*body[Deployments], error) {
	all, err := s.records(mostRecords)
	if err != nil {
		return nil, err
	}
	return answerWith(Deployments{all[:min(in.Limit, len(all))], deployment.Analyze(all)}), nil
}
