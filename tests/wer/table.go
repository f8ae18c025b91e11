package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"whisper-appliance/internal/fault"
	"whisper-appliance/internal/score"
	"whisper-appliance/tests/report"
)

// sums adds the counts of several recordings, side by side.
type sums struct{ ours, theirs, original score.Counts }

func (s sums) add(h heard) sums {
	return sums{s.ours.Add(h.ours.counts), s.theirs.Add(h.theirs.counts), s.original.Add(h.original.counts)}
}

// byLanguage is the sums of each language, and of all.
func (r *result) byLanguage() (of map[string]sums, all sums) {
	of = map[string]sums{}
	for _, h := range r.clips {
		of[h.clip.Language] = of[h.clip.Language].add(h)
		all = all.add(h)
	}
	return of, all
}

// write puts the tables and what explains them.
func (r *result) write(out *report.Report) {
	of, all := r.byLanguage()
	out.Printf("\n")
	out.Table(func(row func(...any)) {
		row("language", "unit", "ours", "theirs", "points", "ours on the originals")
		for _, language := range slices.Sorted(maps.Keys(of)) {
			row(of[language].cells(language, unit(language))...)
		}
		row(all.cells("overall", "both")...)
	})
	out.Printf("\nlong form (%d clips in %s, %.0f s with pauses; theirs with beam search, as whisper-cli does by itself)\n",
		r.joined, longLanguage, r.long.duration.Seconds())
	out.Table(func(row func(...any)) {
		row("", "ours", "theirs")
		row("errors", fraction(r.long.ours.counts), fraction(r.long.theirs.counts))
		row("time", seconds(r.long.ours.cost.Took), seconds(r.long.theirs.cost.Took))
		row("processor time", seconds(r.long.ours.cost.CPU), seconds(r.long.theirs.cost.CPU))
		row("memory at most", fault.Bytes(r.long.ours.cost.Peak), fault.Bytes(r.long.theirs.cost.Peak))
	})
	r.writeDifferences(out)
	out.Printf("\n%s\n", strings.Join([]string{
		"ours, theirs: errors/units said = rate, after both texts were brought into one spelling;",
		"points: ours minus theirs in percent; below 0 ours is better.",
		"zh and ja are counted by character, and each character enters overall as one unit.",
		"Both sides got the same 16 kHz mono files; the last column is ours on the recordings as they are.",
	}, "\n"))
	for _, c := range r.excluded {
		out.Printf("%s does not count: %s.\n", c.File, c.Excluded)
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// writeDifferences lists the clips on which the sides do not agree.
func (r *result) writeDifferences(out *report.Report) {
	out.Printf("\nclips heard differently\n")
	same := 0
	for _, h := range append(slices.Clone(r.clips), r.long) {
		language := h.clip.Language
		if score.Normalize(language, h.ours.text) == score.Normalize(language, h.theirs.text) {
			same++
			continue
		}
		out.Printf("%s: ours %s, theirs %s\n", h.clip.File, fraction(h.ours.counts), fraction(h.theirs.counts))
		if h.clip.Path != "" { // the long form's text is too long to be read here
			out.Printf("  said    %s\n  ours    %s\n  theirs  %s\n", h.clip.Reference, strings.TrimSpace(h.ours.text), h.theirs.text)
		}
	}
	out.Printf("(%d others are the same)\n", same)
}

// cells is a line of the table.
func (s sums) cells(name, unit string) []any {
	points := 100 * (s.ours.Rate() - s.theirs.Rate())
	return []any{name, unit, fraction(s.ours), fraction(s.theirs), fmt.Sprintf("%+.2f", points), fraction(s.original)}
}

func fraction(c score.Counts) string {
	return fmt.Sprintf("%d/%d = %.1f %%", c.Errors(), c.Ref, 100*c.Rate())
}

func unit(language string) string {
	if score.ByCharacter(language) {
		return "characters"
	}
	return "words"
}

// verdict is an error where ours is worse overall by more than the tolerance.
func (r *result) verdict() error {
	_, all := r.byLanguage()
	if worse := all.ours.Rate() - all.theirs.Rate(); worse > tolerance {
		return fmt.Errorf("ours is worse overall by %.2f points; at most %.2f are allowed", 100*worse, 100*tolerance)
	}
	return nil
}
