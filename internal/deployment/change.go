package deployment

// PolicyChange is what somebody wants the policy to be. What is nil stays as it
// is; values are checked by the updater, which knows what /etc fixes.
type PolicyChange struct {
	Channel   *string  `json:"channel,omitempty"`
	Automatic *string  `json:"automatic,omitempty"`
	Window    *string  `json:"window,omitempty"` // "" = at any time
	Days      []string `json:"days,omitempty"`   // nil = as it is, empty = every day
}
