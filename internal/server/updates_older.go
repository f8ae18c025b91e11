package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/version"
)

// Commit is what the original told of a release, and of its history.
type Commit struct {
	SHA     string `json:"sha" doc:"Seven digits of the commit; empty where it is not known."`
	Message string `json:"message"`
	Author  string `json:"author" doc:"Through which door it came."`
	Date    string `json:"date"`
}

// infoOf is what is on offer, nil where nothing is.
func infoOf(o *deployment.Offer) *Commit {
	if o == nil {
		return nil
	}
	return &Commit{Message: cmp.Or(shortNotes(o), "version "+o.Version), Date: stamp(o.Published)}
}

// commits are deployments of this machine.
func commits(records []deployment.Record) []Commit {
	list := []Commit{}
	for _, r := range records {
		list = append(list, Commit{SHA: shortSHA(r.To.Commit), Message: deployed(r), Author: string(r.Door), Date: stamp(r.Ended)})
	}
	return list
}

func shortSHA(commit string) string { return commit[:min(7, len(commit))] }

// OldCheck has the original's keys. Versions are versions, no commits.
type OldCheck struct {
	UpdateAvailable bool    `json:"update_available"`
	CurrentVersion  string  `json:"current_version"`
	LatestVersion   string  `json:"latest_version"`
	UpdateInfo      *Commit `json:"update_info" doc:"null where nothing newer is on offer."`
	LastCheck       *string `json:"last_check"`
}

func oldCheckOf(st deployment.Status) OldCheck {
	return OldCheck{UpdateAvailable: installable(st.Available), CurrentVersion: st.Current.Version, LatestVersion: latest(st),
		UpdateInfo: infoOf(st.Available), LastCheck: stampOrNull(st.Checked)}
}

func (s *Server) oldCheck(ctx context.Context, _ *struct{}) (*body[OldCheck], error) {
	st, err := s.checkedLately(ctx)
	if err != nil {
		return nil, err
	}
	return answerWith(oldCheckOf(st)), nil
}

// olderCheck asks the sources whatever was known.
func (s *Server) olderCheck(ctx context.Context, _ *struct{}) (*body[OldCheck], error) {
	version, err := s.checkNow(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.updateStatus()
	if err != nil {
		return nil, err
	}
	st.Available = offered(st, version)
	return answerWith(oldCheckOf(st)), nil
}

// OldInstall has the original's keys.
type OldInstall struct {
	Success          bool   `json:"success" doc:"The update has begun."`
	Message          string `json:"message"`
	BackupPath       string `json:"backup_path" doc:"The release that serves, which stays."`
	RestartRequired  bool   `json:"restart_required" doc:"Always false: the update takes over by itself."`
	RestartAttempted bool   `json:"restart_attempted"`
	RestartSuccess   bool   `json:"restart_success"`
}

func (s *Server) oldInstall(ctx context.Context, _ *struct{}) (*body[OldInstall], error) {
	_, says, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	return answerWith(OldInstall{Success: true, Message: says, BackupPath: s.Environment.AppRoot}), nil
}

// OldStatus has the original's keys.
type OldStatus struct {
	RepoPath        string   `json:"repo_path" doc:"The release in use."`
	CurrentCommit   string   `json:"current_commit"`
	UpdateAvailable bool     `json:"update_available"`
	UpdateInfo      *Commit  `json:"update_info"`
	LastCheck       *string  `json:"last_check"`
	Backups         int      `json:"backups"`
	RecentCommits   []Commit `json:"recent_commits" doc:"The five newest deployments."`
}

func (s *Server) oldStatus(context.Context, *struct{}) (*body[OldStatus], error) {
	st, err := s.updateStatus()
	if err != nil {
		return nil, err
	}
	records, err := s.records(5)
	if err != nil {
		return nil, err
	}
	backups, err := s.backups()
	if err != nil {
		return nil, err
	}
	return answerWith(OldStatus{RepoPath: s.Environment.AppRoot, CurrentCommit: cmp.Or(st.Current.Commit, version.Build().Commit),
		UpdateAvailable: installable(st.Available), UpdateInfo: infoOf(st.Available), LastCheck: stampOrNull(st.Checked),
		Backups: len(backups), RecentCommits: commits(records)}), nil
}

// OldHistory has the original's key.
type OldHistory struct {
	Commits []Commit `json:"commits" doc:"The twenty newest deployments of this machine."`
}

func (s *Server) oldHistory(context.Context, *struct{}) (*body[OldHistory], error) {
	records, err := s.records(20)
	if err != nil {
		return nil, err
	}
	return answerWith(OldHistory{commits(records)}), nil
}

// OldBackups has the original's key.
type OldBackups struct {
	Backups []Backup `json:"backups" doc:"The other slot, and the package's own release."`
}

func (s *Server) oldBackups(context.Context, *struct{}) (*body[OldBackups], error) {
	list, err := s.backups()
	if err != nil {
		return nil, err
	}
	return answerWith(OldBackups{list}), nil
}

// oldRollbackInput is what the original took. Other keys are passed over, as it did.
type oldRollbackInput struct {
	Body *struct {
		_          struct{} `additionalProperties:"true"`
		BackupName string   `json:"backup_name,omitempty" doc:"A name that /api/update/backups lists."`
	}
}

func (in *oldRollbackInput) name() string {
	if in.Body == nil {
		return ""
	}
	return in.Body.BackupName
}

// OldDone has the original's keys.
type OldDone struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
}

func (s *Server) oldRollback(ctx context.Context, in *oldRollbackInput) (*body[OldDone], error) {
	if err := s.wayBack(in.name()); err != nil {
		return nil, err
	}
	return s.wentBack(ctx)
}

// olderRollback needs no name: its callers never had one.
func (s *Server) olderRollback(ctx context.Context, in *oldRollbackInput) (*body[OldDone], error) {
	if in.name() == "" {
		return s.wentBack(ctx)
	}
	return s.oldRollback(ctx, in)
}

func (s *Server) wentBack(ctx context.Context) (*body[OldDone], error) {
	id, err := s.begin(ctx, func(ctx context.Context, u Updates) (string, error) { return u.Rollback(ctx) })
	if err != nil {
		return nil, err
	}
	return answerWith(OldDone{true, "going back to the release before as " + id}), nil
}

// wayBack refuses what is not the release that the updater goes back to.
func (s *Server) wayBack(name string) error {
	const listed = "GET /api/update/backups lists the names"
	switch {
	case name == "":
		return fault.New(fault.BadInput, "missing_field", "backup_name is missing").On("backup_name").Try(listed)
	case strings.ContainsAny(name, "/\\\x00") || strings.Contains(name, ".."):
		return fault.New(fault.BadInput, "invalid_value", "backup_name is %s; it must be a name, no path", quoted(name)).On("backup_name").Try(listed)
	}
	backups, err := s.backups()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(backups, func(b Backup) bool { return b.Name == name }) {
		return fault.New(fault.NotFound, "no_such_backup", "there is no backup %s", quoted(name)).On("backup_name").Try(listed)
	}
	if name == golden {
		return fault.New(fault.Conflict, "not_by_name", "the updater goes back to the other slot; the package's own release is chosen by root").On("backup_name").
			Try("`sudo whisper-appliance slot deploy`")
	}
	return nil
}

func (s *Server) oldRestart(ctx context.Context, _ *struct{}) (*body[OldDone], error) {
	if err := s.restart(ctx); err != nil {
		return nil, err
	}
	return answerWith(OldDone{true, restarting}), nil
}

// SimpleUpdate has the original's keys.
type SimpleUpdate struct {
	Status          string `json:"status" enum:"success" doc:"The update has begun."`
	Message         string `json:"message"`
	PreviousVersion string `json:"previous_version" doc:"The one that serves now."`
	NewVersion      string `json:"new_version" doc:"The one that is being installed."`
	BackupLocation  string `json:"backup_location"`
	UpdateMethod    string `json:"update_method" enum:"blue_green,package"`
	RestartRequired bool   `json:"restart_required" doc:"Always false: the update takes over by itself."`
}

func (s *Server) simpleUpdate(ctx context.Context, _ *struct{}) (*body[SimpleUpdate], error) {
	st, says, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	return answerWith(SimpleUpdate{Status: "success", Message: says, PreviousVersion: st.Current.Version, NewVersion: latest(st),
		BackupLocation: s.Environment.AppRoot, UpdateMethod: s.updateMethod()}), nil
}

// GitUpdates has the original's keys.
type GitUpdates struct {
	Status      string   `json:"status" enum:"deprecated"`
	Message     string   `json:"message"`
	NewEndpoint string   `json:"new_endpoint"`
	Features    []string `json:"enterprise_features" doc:"Those that work."`
}

func (s *Server) gitUpdates(context.Context, *struct{}) (*body[GitUpdates], error) {
	return answerWith(GitUpdates{Status: "deprecated", Message: "updates are signed releases, no commits", NewEndpoint: "/api/enterprise/check-updates",
		Features: s.trueFeatures()}), nil
}

// ServiceRestart has the original's keys.
type ServiceRestart struct {
	Status  string `json:"status" enum:"success" doc:"The updater has taken it on."`
	Message string `json:"message"`
}

func (s *Server) restartService(ctx context.Context, _ *struct{}) (*body[ServiceRestart], error) {
	if err := s.restart(ctx); err != nil {
		return nil, err
	}
	return answerWith(ServiceRestart{"success", restarting}), nil
}

// socketIO tells the original's path for live speech.
func socketIO(path string) bool {
	return path == "/socket.io" || strings.HasPrefix(path, "/socket.io/")
}

// gone answers what spoke Socket.IO with the original.
func (s *Server) gone(w http.ResponseWriter, r *http.Request) {
	at(r.Context(), "/socket.io/")
	f := fault.New(fault.NotFound, "gone", "Socket.IO is no longer spoken here").
		Try("send recordings to POST /api/v1/transcriptions, which answers with events as the text comes, or to /v1/audio/transcriptions with stream=true")
	w.Header().Set("Link", `</api/v1/transcriptions>; rel="successor-version"`)
	writeJSON(w, http.StatusGone, s.errorBody(r.URL.Path, http.StatusGone, f))
}
