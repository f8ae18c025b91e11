package server

import "context"

// replaced is the day this server replaced the original, as RFC 9745 writes it.
const replaced = "@1763683200"

// DeploymentInfo has the original's keys, and one more that says why a feature
// is false.
type DeploymentInfo struct {
	Status              string             `json:"status" enum:"success"`
	DeploymentType      string             `json:"deployment_type"`
	ContainerType       *string            `json:"container_type" doc:"null where there is no container."`
	ApplicationPath     string             `json:"application_path"`
	DetectedPaths       []string           `json:"detected_paths"`
	EnterpriseFeatures  EnterpriseFeatures `json:"enterprise_features"`
	StrategyDescription string             `json:"strategy_description"`
	FeatureReasons      map[string]string  `json:"feature_reasons" doc:"Why a feature is false."`
}

// EnterpriseFeatures are the original's six. They are true only where they work.
type EnterpriseFeatures struct {
	ZeroDowntime    bool `json:"zero_downtime_updates"`
	PermissionSafe  bool `json:"permission_safe_operations"`
	Rollback        bool `json:"automatic_rollback"`
	BlueGreen       bool `json:"blue_green_deployment"`
	DeploymentAware bool `json:"deployment_aware_strategies"`
	AuditLogging    bool `json:"comprehensive_audit_logging"`
}

type deploymentAnswer struct {
	Deprecation string `header:"Deprecation"`
	Link        string `header:"Link"`
	Body        DeploymentInfo
}

func (s *Server) deploymentInfo(context.Context, *struct{}) (*deploymentAnswer, error) {
	e := s.Environment
	features, reasons := s.features()
	deployment, container := e.Original()
	info := DeploymentInfo{
		Status: "success", DeploymentType: deployment, ContainerType: orNull(container),
		ApplicationPath: e.AppRoot, DetectedPaths: append([]string{}, e.Detected...),
		EnterpriseFeatures: features, FeatureReasons: reasons, StrategyDescription: "the package manager installs new versions",
	}
	if features.BlueGreen {
		info.StrategyDescription = "a new version goes into the idle slot, and the doors stay open while it takes over"
	}
	return &deploymentAnswer{Deprecation: replaced, Link: `</health/detailed>; rel="successor-version"`, Body: info}, nil
}

// orNull is a word as the original had it: null where there is none.
func orNull(word string) *string {
	if word == "" {
		return nil
	}
	return &word
}

// features are what the appliance can do of the original's list.
func (s *Server) features() (EnterpriseFeatures, map[string]string) {
	modules, because := s.modules()
	slots := s.Slot == "a" || s.Slot == "b"
	f := EnterpriseFeatures{BlueGreen: slots, ZeroDowntime: modules.Update && slots, PermissionSafe: modules.Update, Rollback: modules.Update && slots,
		DeploymentAware: modules.Update, AuditLogging: modules.Update}
	reasons := map[string]string{}
	for name, on := range map[string]bool{"zero_downtime_updates": f.ZeroDowntime, "permission_safe_operations": f.PermissionSafe,
		"automatic_rollback": f.Rollback, "deployment_aware_strategies": f.DeploymentAware, "comprehensive_audit_logging": f.AuditLogging} {
		if !on {
			reasons[name] = "it needs the updater: " + because["update"]
		}
	}
	if !slots {
		reasons["blue_green_deployment"] = "this server does not run from one of the slots a and b"
	}
	return f, reasons
}
