package model

import "strings"

// Languages are the codes of the languages that the newest multilingual models
// know, in the order of Whisper's language tokens. All but the last, Cantonese,
// are known to the older ones too.
func Languages() []string {
	return strings.Fields(`en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi
		he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl
		kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd
		gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue`)
}

// languagesOf is what the model of that name knows: English, 99 languages, or
// 100 from large-v3 on.
func languagesOf(name string) []string {
	all := Languages()
	switch {
	case strings.Contains(name, ".en"):
		return all[:1]
	case strings.HasPrefix(name, "large-v3"):
		return all
	default:
		return all[:len(all)-1]
	}
}
