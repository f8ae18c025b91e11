package component

import (
	"context"
	"strings"
	"testing"

	"whisper-appliance/internal/fault"
)

func drawn() []Component {
	return []Component{
		{Name: "paths", Does: "knows where everything is", Critical: true},
		{Name: "engine", Does: "recognises speech", Needs: []string{"paths"}, Without: "recordings are refused | 503", Checked: "it answers",
			Check: func(context.Context) (string, error) { return "", nil }},
		{Name: "updater", Does: "brings new versions", Planned: "comes with a later version"},
		{Name: "job-queue", Does: "keeps the order", Needs: []string{"engine", "paths"}},
	}
}

func TestGraph(t *testing.T) {
	for format, want := range map[string]string{
		"dot": `digraph components {
	rankdir=LR;
	node [shape=box];
	"paths" [style=bold];
	"engine" [style=solid];
	"updater" [style=dotted];
	"job-queue" [style=solid];
	"engine" -> "paths";
	"job-queue" -> "engine";
	"job-queue" -> "paths";
}
`,
		"mermaid": `graph LR
  c_paths[[paths]]
  c_engine(engine)
  c_updater{{updater}}
  c_job_queue(job-queue)
  c_engine --> c_paths
  c_job_queue --> c_engine
  c_job_queue --> c_paths
`,
		"text": `level 0
  paths (critical)
  updater (planned)
level 1
  engine (optional) needs paths
level 2
  job-queue (optional) needs engine, paths
`,
	} {
		got, err := Graph(drawn(), format)
		if err != nil || got != want {
			t.Errorf("%s, %v:\n%s\nwant\n%s", format, err, got, want)
		}
	}
	_, err := Graph(drawn(), "mermade")
	if fault.KindOf(err) != fault.BadInput || !strings.Contains(fault.Hint(err), "mermaid") {
		t.Errorf("%v, hint %q", err, fault.Hint(err))
	}
}

func TestPage(t *testing.T) {
	page := Page(drawn())
	for _, says := range []string{
		"| paths | critical | – | knows where everything is | – | – |\n",
		`| engine | optional | paths | recognises speech | it answers, every 30s | recordings are refused \| 503 |` + "\n",
		"| updater | planned | – | brings new versions | – | comes with a later version |\n",
		"```mermaid\ngraph LR\n",
	} {
		if !strings.Contains(page, says) {
			t.Errorf("the page does not say %q:\n%s", says, page)
		}
	}
	if page != Page(drawn()) {
		t.Error("the page is another each time")
	}
}
