package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"whisper-appliance/internal/deployment"
)

// EnterpriseCheck has the original's keys.
type EnterpriseCheck struct {
	Status            string            `json:"status" enum:"success"`
	DeploymentType    string            `json:"deployment_type"`
	ContainerType     *string           `json:"container_type" doc:"null where there is no container."`
	CurrentVersion    string            `json:"current_version"`
	LatestVersion     string            `json:"latest_version" doc:"current_version where nothing newer is on offer."`
	HasUpdate         bool              `json:"has_update" doc:"It would be installed here."`
	ReleaseNotes      string            `json:"release_notes" doc:"At most 500 characters of them."`
	LastCheck         *string           `json:"last_check" doc:"When the sources were asked; null for never."`
	Features          []string          `json:"enterprise_features" doc:"Those that work."`
	UpdateMethod      string            `json:"update_method" enum:"blue_green,package"`
	TechnicalSolution TechnicalSolution `json:"technical_solution"`
}

// TechnicalSolution says how updates are made.
type TechnicalSolution struct {
	Problem  string   `json:"problem"`
	Solution string   `json:"solution"`
	Benefits []string `json:"benefits"`
}

func technicalSolution() TechnicalSolution {
	return TechnicalSolution{
		Problem:  "a release that is overwritten in place leaves nothing that runs where power, disk or the release fail",
		Solution: "a signed release goes into the idle slot, is verified and rehearsed there, takes over while the doors stay open, and is on trial until it has proved itself",
		Benefits: []string{"no refused connection", "the release before stays whole and takes over again by itself", "nothing unsigned is unpacked"},
	}
}

func (s *Server) enterpriseCheck(ctx context.Context, _ *struct{}) (*body[EnterpriseCheck], error) {
	st, err := s.checkedLately(ctx)
	if err != nil {
		return nil, err
	}
	place, container := s.place()
	return answerWith(EnterpriseCheck{
		Status: "success", DeploymentType: place, ContainerType: container, CurrentVersion: st.Current.Version, LatestVersion: latest(st),
		HasUpdate: installable(st.Available), ReleaseNotes: shortNotes(st.Available), LastCheck: stampOrNull(st.Checked),
		Features: s.trueFeatures(), UpdateMethod: s.updateMethod(), TechnicalSolution: technicalSolution(),
	}), nil
}

// EnterpriseStart has the original's keys.
type EnterpriseStart struct {
	Status         string   `json:"status" enum:"success" doc:"The update has begun."`
	Message        string   `json:"message"`
	DeploymentType string   `json:"deployment_type"`
	ContainerType  *string  `json:"container_type"`
	UpdateMethod   string   `json:"update_method" enum:"blue_green,package"`
	CurrentVersion string   `json:"current_version"`
	LatestVersion  string   `json:"latest_version" doc:"The one that is being installed."`
	BackupCreated  bool     `json:"backup_created" doc:"The release that serves stays whole, to go back to."`
	Features       []string `json:"features" doc:"Those that work."`
}

// applied begins the installation of what is on offer, and says so. The status is
// from before; the version that it tells of is the one that was ordered. What
// would not be installed here is the updater's to refuse.
func (s *Server) applied(ctx context.Context) (st deployment.Status, says string, err error) {
	if st, err = s.statusNow(ctx); err != nil {
		return st, "", err
	}
	version := ""
	if installable(st.Available) {
		version = st.Available.Version
	}
	transaction, err := s.begin(ctx, func(ctx context.Context, u Updates) (string, error) { return u.Apply(ctx, version) })
	return st, begunWords(transaction, version), err
}

func (s *Server) enterpriseStart(ctx context.Context, _ *struct{}) (*body[EnterpriseStart], error) {
	st, says, err := s.applied(ctx)
	if err != nil {
		return nil, err
	}
	place, container := s.place()
	return answerWith(EnterpriseStart{
		Status: "success", Message: says + "; update-status tells how it goes on", DeploymentType: place, ContainerType: container,
		UpdateMethod: s.updateMethod(), CurrentVersion: st.Current.Version, LatestVersion: latest(st), BackupCreated: st.Current.Slot != "", Features: s.trueFeatures(),
	}), nil
}

// EnterpriseStatus has the original's keys.
type EnterpriseStatus struct {
	Status           string   `json:"status" enum:"success"`
	UpdateState      string   `json:"update_state" enum:"idle,updating" doc:"updating until the release is committed or gone."`
	CheckingUpdates  bool     `json:"checking_updates"`
	Progress         int      `json:"progress" minimum:"0" maximum:"100" doc:"Per cent of the update that is under way; 0 where none is."`
	Message          string   `json:"message"`
	DeploymentType   string   `json:"deployment_type"`
	ContainerType    *string  `json:"container_type"`
	CurrentVersion   string   `json:"current_version"`
	LatestVersion    string   `json:"latest_version"`
	UpdatesAvailable bool     `json:"updates_available"`
	LastCheck        *string  `json:"last_check" doc:"null for never."`
	LastUpdate       *string  `json:"last_update" doc:"When a release was last committed; null for never."`
	BackupCreated    bool     `json:"backup_created" doc:"There is a release to go back to."`
	AvailableBackups int      `json:"available_backups"`
	Error            *string  `json:"error" doc:"What failed last, or what somebody has to look at; null where nothing did."`
	RolledBack       bool     `json:"rollback_performed" doc:"The last deployment was taken back, and what served before it serves again."`
	UpdateLog        []string `json:"update_log" doc:"The ten newest deployments, a line each."`
	Features         []string `json:"enterprise_features" doc:"Those that work."`
}

func (s *Server) enterpriseStatus(context.Context, *struct{}) (*body[EnterpriseStatus], error) {
	st, err := s.updateStatus()
	if err != nil {
		return nil, err
	}
	records, err := s.records(mostRecords)
	if err != nil {
		return nil, err
	}
	backups, err := s.backups()
	if err != nil {
		return nil, err
	}
	place, container := s.place()
	answer := EnterpriseStatus{
		Status: "success", UpdateState: "idle", CheckingUpdates: st.State == deployment.Checking, Message: cmp.Or(st.Message, string(st.State)),
		DeploymentType: place, ContainerType: container, CurrentVersion: st.Current.Version, LatestVersion: latest(st),
		UpdatesAvailable: installable(st.Available), LastCheck: stampOrNull(st.Checked), BackupCreated: len(backups) > 0, AvailableBackups: len(backups),
		Error: orNull(lastError(st, records)), UpdateLog: []string{}, Features: s.trueFeatures(),
	}
	if len(records) > 0 {
		answer.RolledBack = records[0].Outcome == deployment.RolledBack
	}
	if underWay(st) {
		answer.UpdateState, answer.Progress = "updating", percent(st)
	}
	if r, ok := lastSuccess(records); ok {
		answer.LastUpdate = stampOrNull(r.Ended)
	}
	for _, r := range records[:min(10, len(records))] {
		answer.UpdateLog = append(answer.UpdateLog, stamp(r.Ended)+" "+deployed(r))
	}
	return answerWith(answer), nil
}

// underWay tells whether what serves may be another release soon.
func underWay(st deployment.Status) bool {
	return slices.Contains([]deployment.State{deployment.Downloading, deployment.Updating, deployment.Trial, deployment.RollingBack}, st.State)
}

// percent is how far an update is: phases count alike, and of the one that it
// is in as much as is known.
func percent(st deployment.Status) int {
	phases := deployment.Phases()
	i := slices.Index(phases, st.Phase)
	if i < 0 {
		return 0
	}
	within := 0.0
	switch {
	case st.Phase == deployment.OnTrial && st.Trial != nil && st.Trial.NeededSeconds > 0:
		within = st.Trial.HealthySeconds / st.Trial.NeededSeconds
	case st.Progress.Total > 0:
		within = float64(st.Progress.Done) / float64(st.Progress.Total)
	}
	return int(100 * (float64(i) + min(max(within, 0), 1)) / float64(len(phases)))
}

// lastError is what somebody should know of, the most urgent alone. While an
// update is under way an earlier one's failure is history.
func lastError(st deployment.Status, newestFirst []deployment.Record) string {
	switch {
	case st.Alarm != nil:
		return st.Alarm.Message
	case underWay(st):
		return ""
	case len(newestFirst) > 0 && failedOf(newestFirst[0]) != "":
		return failedOf(newestFirst[0])
	case st.CheckError != nil:
		return st.CheckError.Message
	}
	return ""
}

// failedOf says how a deployment failed, "" where it did not.
func failedOf(r deployment.Record) string {
	wanted := r.Kind == "rollback" && r.Outcome == deployment.RolledBack
	if wanted || slices.Contains([]string{deployment.Committed, deployment.Kept, deployment.Canceled}, r.Outcome) {
		return ""
	}
	what, became := cmp.Or(prefixed("version ", r.To.Version), "the update"), "failed, and nobody can say what serves"
	switch r.Outcome {
	case deployment.RolledBack:
		became = "was rolled back, and " + cmp.Or(prefixed("version ", r.From.Version), "what was there before") + " serves again"
	case deployment.Aborted:
		became = "was not installed"
	}
	return fmt.Sprintf("%s %s: %s", what, became, cmp.Or(r.Says, r.Reason, "no reason was recorded"))
}
