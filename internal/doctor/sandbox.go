package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/systemd"
)

const allowNesting = "allow nesting for this container on its host (Proxmox: Options, Features, nesting), then `whisper-appliance doctor --fix`"

// sandboxes tells what holds: which directives work here, by trying, and what
// the kernel makes of the settings of those that run.
func (d *Doctor) sandboxes(ctx context.Context) []Finding {
	if !d.installed() {
		return one(well("the sandboxes of units are for installed appliances; the decoder makes its own"))
	}
	found := d.running(ctx)
	if d.Mender == nil {
		return append(found, unseen("ask again as root, with systemd running", "what this machine allows of the sandboxes")...)
	}
	plan, err := d.plan(ctx)
	if err != nil {
		return append(found, unseen("systemctl status", "what this machine allows of the sandboxes: %v", err)...)
	}
	return append(found, plan.findings(d)...)
}

// running compares settings with what the kernel holds the server to.
func (d *Doctor) running(ctx context.Context) []Finding {
	if d.Units == nil {
		return nil
	}
	units, err := d.Units.Units(ctx, systemd.Service, systemd.EngineService("a"), systemd.EngineService("b"), systemd.EngineService("golden"))
	if err != nil {
		return unseen("systemctl status", "%v", err)
	}
	var found []Finding
	for _, u := range units {
		if u.MainPID == 0 || u.Active != "active" {
			continue
		}
		told, err := d.Units.Effective(ctx, u.Name)
		if err != nil {
			continue
		}
		held, err := systemd.Confined(d.Paths.Proc, u.MainPID)
		if err != nil {
			continue // it has ended meanwhile
		}
		if lost := systemd.Differences(told, held); len(lost) > 0 {
			found = append(found, advice(allowNesting, "%s runs without %s, though its unit asks for it", u.Name, strings.Join(lost, ", ")))
		}
	}
	return found
}

// plan is what the trials came to.
type plan struct {
	trials   []trial
	dropIns  []dropIn // one for each service of ours, empty where nothing is to be relaxed
	settings []Finding
	together []Finding // services that do not start even so
}

func (d *Doctor) plan(ctx context.Context) (plan, error) {
	services, err := d.services()
	if err != nil {
		return plan{}, fmt.Errorf("read the package's units: %w", err)
	}
	var p plan
	if p.trials, err = d.trials(ctx, services); err != nil {
		return plan{}, err
	}
	for _, s := range services {
		in, rest := p.relaxation(s)
		p.dropIns = append(p.dropIns, in)
		if bad := d.startsAs(ctx, s.name, rest); bad.Says != "" {
			p.together = append(p.together, bad)
		}
	}
	models, findings := d.modelsElsewhere(ctx, p)
	p.dropIns, p.settings = append(p.dropIns, models...), findings
	return p, nil
}

// relaxation is the drop-in for a service: what is refused of what it uses. A
// directive that is silently left out stays: relaxing it would gain nothing,
// and would lose it the day that the host allows it. rest is what is left of
// the service's settings that can be tried.
func (p plan) relaxation(s service) (in dropIn, rest []systemd.Setting) {
	in = dropIn{unit: s.name, file: sandboxDropIn}
	for _, t := range p.trials {
		if !s.uses(t.name) {
			continue
		}
		if t.refused == "" {
			rest = append(rest, systemd.Setting{Name: t.name, Value: s.value(t.name)})
			continue
		}
		in.why = append(in.why, fmt.Sprintf("this machine does not allow %s (a service with it ends with %s)", t.name, t.refused))
		in.settings = append(in.settings, t.relax...)
		if t.name == "DynamicUser" {
			in.settings = append(in.settings, systemd.Setting{Name: "User", Value: standIn(s.name)})
		}
	}
	return in, rest
}

// startsAs tries a service's remaining settings together.
func (d *Doctor) startsAs(ctx context.Context, unit string, settings []systemd.Setting) Finding {
	settings = d.rehearsal(settings)
	applied, result, err := d.Mender.Probe(ctx, settings, "true")
	if err != nil || applied {
		return Finding{}
	}
	return problem("`journalctl -b -n 50` has systemd's own words; "+allowNesting,
		"the sandbox of %s cannot be set up here: together its settings end with %s", unit, result)
}

// rehearsal makes settings such that a program of the system can run under
// them, before there is a slot: what a specifier stands for, or may not be
// there yet, is not asked for.
func (d *Doctor) rehearsal(settings []systemd.Setting) []systemd.Setting {
	list := slices.Clone(settings)
	rooted := slices.ContainsFunc(list, func(s systemd.Setting) bool { return s.Name == "RootDirectory" })
	bound := ""
	for i, s := range list {
		if s.Name != "BindReadOnlyPaths" {
			continue
		}
		for _, word := range strings.Fields(s.Value) {
			if !strings.Contains(word, "%") {
				bound += " -" + strings.TrimPrefix(word, "-")
			}
		}
		list[i].Value = bound
	}
	if !rooted {
		return list
	}
	list = slices.DeleteFunc(list, func(s systemd.Setting) bool { return s.Name == "BindReadOnlyPaths" })
	return append(list, d.programs(bound))
}

func (p plan) findings(d *Doctor) []Finding {
	var refused, silent []string
	for _, t := range p.trials {
		switch {
		case t.refused != "":
			refused = append(refused, fmt.Sprintf("%s (%s)", t.name, t.refused))
		case t.silent:
			silent = append(silent, t.name)
		}
	}
	var found []Finding
	if len(refused) > 0 {
		found = append(found, advice(allowNesting, "this machine does not allow %s", strings.Join(refused, ", ")))
	}
	if len(silent) > 0 {
		found = append(found, advice(allowNesting, "this machine leaves out, without a word, %s; the rest of the sandboxes holds", strings.Join(silent, ", ")))
	}
	if len(refused)+len(silent) == 0 {
		found = append(found, well("all %d directives that a machine may forbid work here", len(p.trials)))
	}
	found = append(found, p.together...)
	found = append(found, p.settings...)
	return append(found, p.missing(d)...)
}

// missing are drop-ins that should be there, and those that should go.
func (p plan) missing(d *Doctor) []Finding {
	var found []Finding
	for _, in := range p.dropIns {
		if d.inPlace(in) {
			if len(in.settings) > 0 {
				found = append(found, well("%s relaxes %s", d.dropInPath(in), words(in.settings)))
			}
			continue
		}
		f := problem("whisper-appliance doctor --fix", "%s needs a drop-in with %s", in.unit, words(in.settings))
		if len(in.settings) == 0 {
			f = advice("whisper-appliance doctor --fix", "%s is no longer needed", d.dropInPath(in))
		}
		f.Fixable = true
		found = append(found, f)
	}
	return found
}

func words(settings []systemd.Setting) string {
	var list []string
	for _, s := range settings {
		list = append(list, s.String())
	}
	return strings.Join(list, " ")
}

// mendLimit bounds Mend: an installation waits for it.
const mendLimit = time.Minute

// Mend tries what this machine allows, writes the drop-ins that it makes
// necessary and removes those that it does not, and tells systemd. What it has
// done stands in Fixed. Where systemd cannot be asked it changes nothing.
func (d *Doctor) Mend(ctx context.Context) []Finding {
	const name = "fix"
	ctx, cancel := context.WithTimeout(ctx, mendLimit)
	defer cancel()
	f := d.mend(ctx)
	for i := range f {
		f[i].Check = name
	}
	return f
}

func (d *Doctor) mend(ctx context.Context) []Finding {
	switch {
	case !d.installed():
		return unseen("", "only an installed appliance has units to fix")
	case d.Mender == nil:
		return unseen("as root, with systemd running: whisper-appliance doctor --fix", "what this machine allows of the sandboxes")
	}
	p, err := d.plan(ctx)
	if err != nil {
		return unseen("systemctl status", "what this machine allows of the sandboxes: %v", err)
	}
	var found []Finding
	for _, in := range p.dropIns {
		if !d.inPlace(in) {
			found = append(found, d.apply(in))
		}
	}
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.Fixed != "" }) {
		return found
	}
	if err := d.Mender.DaemonReload(ctx); err != nil {
		found = append(found, problem("systemctl daemon-reload", "systemd has not read the drop-ins: %v", err))
	}
	return found
}

// apply puts one drop-in in place.
func (d *Doctor) apply(in dropIn) Finding {
	path := d.dropInPath(in)
	if err := d.put(in); err != nil {
		return problem("see who may write to "+d.Paths.DropIns, "the drop-in for %s could not be put in place: %v", in.unit, err)
	}
	if len(in.settings) == 0 {
		f := well("%s is no longer needed", path)
		f.Fixed = "removed " + path
		return f
	}
	f := well("%s", strings.Join(in.why, "; "))
	f.Fixed = fmt.Sprintf("wrote %s: %s", path, words(in.settings))
	return f
}
