package doctor

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/model"
	"whisper-appliance/internal/paths"
)

// paths has every path looked at with the server's rights.
func (d *Doctor) paths(context.Context) []Finding {
	var found []Finding
	list := d.Paths.Check(d.User)
	for _, f := range list {
		switch f.Verdict {
		case paths.Problem:
			found = append(found, problem(f.Hint, "%s %s: %s", f.Name, f.Path, f.What))
		case paths.Warning:
			found = append(found, advice(f.Hint, "%s %s: %s", f.Name, f.Path, f.What))
		}
	}
	if len(found) == 0 {
		return one(well("%d paths are as the user %s needs them", len(list), d.User.Name))
	}
	return found
}

// time: certificates, update metadata and logs need a clock that is about right.
func (d *Doctor) time(context.Context) []Finding {
	const set = "set the clock of this machine, or of its host: `timedatectl`"
	now := d.Now()
	// A build's date may lie a little ahead of a clock that is right.
	if !d.Built.IsZero() && now.Before(d.Built.Add(-24*time.Hour)) {
		return one(problem(set, "the clock says %s, which was before this program was made (%s)",
			now.UTC().Format(time.DateOnly), d.Built.UTC().Format(time.DateOnly)))
	}
	if d.Synced == nil {
		return unseen("timedatectl", "whether the clock is kept right")
	}
	synced, err := d.Synced()
	switch {
	case err != nil:
		return unseen("timedatectl", "whether the clock is kept right: %v", err)
	case !synced:
		return one(advice("`timedatectl set-ntp true`; in a container this is the host's", "nothing keeps the clock right: the kernel says that it is not synchronised"))
	}
	return one(well("the clock is synchronised"))
}

// modelName is the model in use, "" where the settings cannot be read.
func (d *Doctor) modelName() string {
	if d.Settings == nil || d.Models == nil {
		return ""
	}
	return d.Settings.Models.Default
}

func (d *Doctor) memory(context.Context) []Finding {
	name := d.modelName()
	if name == "" {
		return unseen("see the check config", "which model is in use")
	}
	if why := d.Models.MemoryWarning(name); why != "" {
		return one(advice("give the machine more memory, or choose a smaller model: `whisper-appliance models list`", "%s", why))
	}
	return one(well("memory suffices for %s", name))
}

// least is what must be free beside a model: recordings are spooled there.
const least = 256 << 20

// disk measures what is left for a model that is yet to come.
func (d *Doctor) disk(context.Context) []Finding {
	name := d.modelName()
	if name == "" {
		return unseen("see the check config", "which model is in use")
	}
	need := int64(least)
	if entry, err := model.Lookup(name); err == nil {
		if _, err := d.Models.Resolve(name); err != nil {
			need += entry.Size
		}
	}
	free, err := d.Free(d.Models.Dir)
	if err != nil {
		return unseen("whisper-appliance paths --check", "the free space of %s: %v", d.Models.Dir, err)
	}
	if free < need {
		return one(problem("free some space, or give it a larger disk", "%s has %s free; the model %s and recordings need %s",
			d.Models.Dir, fault.Bytes(free), name, fault.Bytes(need)))
	}
	return one(well("%s has %s free", d.Models.Dir, fault.Bytes(free)))
}

// lookupLimit bounds the one question to the resolver.
const lookupLimit = 2 * time.Second

// dns is advice only: a machine without a way out takes models by hand.
func (d *Doctor) dns(ctx context.Context) []Finding {
	host := d.hub()
	if host == "" || d.Lookup == nil {
		return one(well("no model comes from the network"))
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	if _, err := d.Lookup(ctx, host); err != nil {
		return one(advice("see the resolver's settings; without a network `whisper-appliance models import` and [models] mirror serve",
			"the name %s, where models come from, cannot be resolved: %v", host, err))
	}
	return one(well("%s can be resolved", host))
}

// hub is the host that the model in use would come from, "" for none.
func (d *Doctor) hub() string {
	if d.Settings == nil {
		return ""
	}
	address := d.Settings.Models.Mirror
	if address == "" {
		entry, err := model.Lookup(d.Settings.Models.Default)
		if err != nil {
			return ""
		}
		address = entry.Hub
	}
	if u, err := url.Parse(address); err == nil && u.Scheme != "" {
		return u.Hostname()
	}
	return "" // a directory
}

// model reads the file of the model in use from end to end of its structure.
func (d *Doctor) model(context.Context) []Finding {
	name := d.modelName()
	if name == "" {
		return unseen("see the check config", "which model is in use")
	}
	file, err := d.Models.Resolve(name)
	if err != nil {
		return one(advice(fault.Hint(err), "%v: recordings are refused until it is there", err))
	}
	info, err := model.Inspect(filepath.Join(d.Models.Dir, file))
	if err != nil {
		return one(problem("whisper-appliance models pull "+name, "the model %s cannot be used: %v", name, err))
	}
	return one(well("%s is installed: %s, %s, %s", name, info.Type, info.Format, fault.Bytes(info.Size)))
}

// gpu: whoever gave the machine one should know that it is not used.
func (d *Doctor) gpu(context.Context) []Finding {
	var nodes []string
	for _, pattern := range []string{"dri/renderD*", "nvidia[0-9]*", "kfd"} {
		found, _ := filepath.Glob(filepath.Join(d.Devices, pattern)) //nolint:errcheck // the patterns are right
		nodes = append(nodes, found...)
	}
	if len(nodes) == 0 {
		return one(well("no GPU is there; this version computes on the processor"))
	}
	return one(advice("nothing: it does no harm", "there is a GPU (%s); this version uses the CPU alone", strings.Join(nodes, " ")))
}
