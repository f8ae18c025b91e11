package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"whisper-appliance/internal/auth"
	"whisper-appliance/internal/deployment"
	"whisper-appliance/internal/fault"
)

// originalUpdates registers the original's doors about updates: its last ones
// below /api/enterprise, and as thin aliases those from before them.
func (d doors) originalUpdates() {
	const get, post = http.MethodGet, http.MethodPost
	const now, check, apply = "/api/v1/updates", "/api/v1/updates/check", "/api/v1/updates/apply"
	const back, restart, history = "/api/v1/updates/rollback", "/api/v1/updates/restart", "/api/v1/updates/history"
	oldDoor(d, auth.Transcribe, old(get, "/api/enterprise/check-updates", "enterpriseCheckUpdates", check), d.s.enterpriseCheck)
	oldDoor(d, auth.Admin, old(post, "/api/enterprise/start-update", "enterpriseStartUpdate", apply), d.s.enterpriseStart)
	oldDoor(d, auth.Transcribe, old(get, "/api/enterprise/update-status", "enterpriseUpdateStatus", now), d.s.enterpriseStatus)
	oldDoor(d, auth.Transcribe, old(get, "/api/update/check", "updateCheck", check), d.s.oldCheck)
	oldDoor(d, auth.Admin, old(post, "/api/update/install", "updateInstall", apply), d.s.oldInstall)
	oldDoor(d, auth.Transcribe, old(get, "/api/update/status", "updateStatus", now), d.s.oldStatus)
	oldDoor(d, auth.Transcribe, old(get, "/api/update/history", "updateCommits", history), d.s.oldHistory)
	oldDoor(d, auth.Transcribe, old(get, "/api/update/backups", "updateBackups", now), d.s.oldBackups)
	oldDoor(d, auth.Admin, old(post, "/api/update/rollback", "updateRollback", back), d.s.oldRollback)
	oldDoor(d, auth.Admin, accepted(old(post, "/api/update/restart", "updateRestart", restart)), d.s.oldRestart)
	oldDoor(d, auth.Admin, old(post, "/api/updates/check", "updatesCheck", check), d.s.olderCheck)
	oldDoor(d, auth.Admin, old(post, "/api/updates/apply", "updatesApply", apply), d.s.oldInstall)
	oldDoor(d, auth.Admin, old(post, "/api/updates/rollback", "updatesRollback", back), d.s.olderRollback)
	oldDoor(d, auth.Transcribe, old(get, "/api/updates/status", "updatesStatus", now), d.s.enterpriseStatus)
	oldDoor(d, auth.Admin, old(post, "/api/simple-update", "simpleUpdate", apply), d.s.simpleUpdate)
	oldDoor(d, auth.Transcribe, old(get, "/api/check-git-updates", "checkGitUpdates", check), d.s.gitUpdates)
	oldDoor(d, auth.Admin, accepted(old(post, "/api/restart-service", "restartService", restart)), d.s.restartService)
}

// old is a door of the original's, whose work successor does now.
func old(method, path, id, successor string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: "Original appliance: use " + successor, Tags: []string{"Original"},
		Deprecated: true, Description: successor}
}

// accepted is op where the work goes on after the answer.
func accepted(op huma.Operation) huma.Operation {
	op.DefaultStatus = http.StatusAccepted
	return op
}

// oldDoor registers op. Whatever it answers points to its successor.
func oldDoor[I, O any](d doors, scope auth.Scope, op huma.Operation, h func(context.Context, *I) (*O, error)) {
	link := "<" + op.Description + `>; rel="successor-version"`
	op.Description = ""
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		ctx.SetHeader("Deprecation", replaced)
		ctx.SetHeader("Link", link)
		next(ctx)
	})
	typed(d, scope, op, h)
}

// originalUpdatePath tells the doors that word their errors as the original did.
func originalUpdatePath(path string) bool {
	for _, below := range []string{"/api/enterprise/", "/api/update/", "/api/updates/"} {
		if strings.HasPrefix(path, below) {
			return true
		}
	}
	return slices.Contains([]string{"/api/simple-update", "/api/check-git-updates", "/api/restart-service"}, path)
}

// OriginalError has all the keys in which the original's doors told failures,
// with true values.
type OriginalError struct {
	Status            string `json:"status" enum:"error"`
	Success           bool   `json:"success"`
	Message           string `json:"message"`
	Error             string `json:"error"`
	ErrorDetails      string `json:"error_details" doc:"What to try."`
	RollbackPerformed bool   `json:"rollback_performed"`
	BackupAvailable   bool   `json:"backup_available" doc:"There is a release to go back to."`
	Code              string `json:"code"`
	Field             string `json:"field,omitempty"`
	Hint              string `json:"hint,omitempty"`
}

func (s *Server) originalError(f *fault.Error) OriginalError {
	var backups []Backup
	if f.Kind != fault.Unauthorized { // strangers are told nothing
		backups, _ = s.backups() //nolint:errcheck // then none is available
	}
	return OriginalError{Status: "error", Message: f.Message, Error: f.Message, ErrorDetails: cmp.Or(f.Hint, f.Code), Code: f.Code, Field: f.Field, Hint: f.Hint,
		RollbackPerformed: f.Code == deployment.RolledBack, BackupAvailable: len(backups) > 0}
}

// Backup is a release that could serve in place of the one that does.
type Backup struct {
	Name string `json:"name" doc:"To be given as backup_name."`
	Path string `json:"path"`
	Date string `json:"date" format:"date-time" doc:"When it was placed."`
	Size int64  `json:"size" doc:"Bytes."`
}

const golden = "golden"

// backups are the other slot and the package's own release, where they are whole.
func (s *Server) backups() ([]Backup, error) {
	u, err := s.updater()
	if err != nil {
		return nil, err
	}
	releases, err := u.Releases()
	if err != nil {
		return nil, unread(err)
	}
	serving := s.Slot
	if st, err := u.Status(); err == nil && st.Current.Slot != "" {
		serving = st.Current.Slot
	}
	list := []Backup{}
	for _, r := range releases {
		if r.Slot != serving && r.Version != "" {
			list = append(list, Backup{Name: r.Slot, Path: r.Path, Date: stamp(r.Placed), Size: r.Bytes})
		}
	}
	return list, nil
}

// stamp is t for people and programs, "" where it is not known.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// stampOrNull is stamp for keys that were null in the original.
func stampOrNull(t time.Time) *string { return orNull(stamp(t)) }

// latest is the newest version that is known of.
func latest(st deployment.Status) string {
	if st.Available != nil {
		return st.Available.Version
	}
	return st.Current.Version
}

func (s *Server) updateMethod() string {
	if s.Slot == "a" || s.Slot == "b" {
		return "blue_green"
	}
	return "package"
}

// trueFeatures are the names of the original's features that there are.
func (s *Server) trueFeatures() []string {
	f, _ := s.features()
	names := []string{}
	for _, feature := range []struct {
		name string
		is   bool
	}{
		{"zero_downtime_updates", f.ZeroDowntime}, {"permission_safe_operations", f.PermissionSafe}, {"automatic_rollback", f.Rollback},
		{"blue_green_deployment", f.BlueGreen}, {"deployment_aware_strategies", f.DeploymentAware}, {"comprehensive_audit_logging", f.AuditLogging},
	} {
		if feature.is {
			names = append(names, feature.name)
		}
	}
	return names
}

// place is where the appliance runs, in the original's words.
func (s *Server) place() (deploymentType string, container *string) {
	deploymentType, c := s.Environment.Original()
	return deploymentType, orNull(c)
}

// shortNotes is as much of a release's notes as the original gave.
func shortNotes(o *deployment.Offer) string {
	const most = 500
	if o == nil {
		return ""
	}
	if r := []rune(o.Notes); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return o.Notes
}

// deployed is a record in a line.
func deployed(r deployment.Record) string {
	line := fmt.Sprintf("%s → %s: %s", cmp.Or(r.From.Version, "nothing"), cmp.Or(r.To.Version, "nothing"), r.Outcome)
	if r.Reason != "" {
		line += " (" + r.Reason + ")"
	}
	return line
}
