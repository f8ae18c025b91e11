// The page: sends a recording to /api/v1/transcriptions and shows its events.
'use strict'

const $ = id => document.getElementById(id)
let request = null // the XMLHttpRequest under way

const phases = {
  decoding: 'Reading the recording …',
  detecting: 'Looking for speech …',
  waiting: 'Waiting for a turn …',
  loading: 'Loading the model …',
  recognising: 'Listening …',
}

function clock (seconds) {
  const s = Math.round(seconds)
  return Math.floor(s / 60) + ':' + String(s % 60).padStart(2, '0')
}

function show (id, text) {
  $(id).hidden = text === ''
  $(id).textContent = text
}

function words (error) {
  return error.hint ? `${error.error}. Try: ${error.hint}` : error.error
}

async function health () {
  try {
    const h = await (await fetch('/health')).json()
    $('health').textContent = h.status === 'ok'
      ? `Ready, version ${h.version}, model ${h.model_status.current_model_name}`
      : `Not ready: ${h.reasons.join('; ')}`
    const chosen = $('model').value
    $('model').replaceChildren(new Option('the one in use', ''),
      ...h.model_status.downloaded_model_ids.map(id => new Option(id, id)))
    $('model').value = chosen
  } catch {
    $('health').textContent = 'The appliance does not answer.'
  }
}

const handlers = {
  progress (p) {
    $('phase').textContent = phases[p.phase] + (p.total ? ` ${clock(p.done)} of ${clock(p.total)}` : '')
    if (p.total) $('progress').value = 100 * p.done / p.total
    else $('progress').removeAttribute('value')
  },
  segment (s) {
    $('result').hidden = false
    $('text').textContent += s.text
  },
  done (d) {
    $('result').hidden = false
    $('text').textContent = d.text || '(nothing was said)'
    $('about').textContent = [d.language, clock(d.duration_ns / 1e9), d.model, ...(d.notes || [])].filter(Boolean).join(' · ')
    finish('')
  },
  error (e) { finish(words(e)) },
}

function finish (error) {
  request = null
  $('start').disabled = false
  $('cancel').hidden = true
  $('work').hidden = true
  show('error', error)
}

// events hands on the complete server-sent events of text from offset, and
// returns where the rest begins.
function events (text, offset) {
  for (;;) {
    const end = text.indexOf('\n\n', offset)
    if (end < 0) return offset
    const event = { name: '', data: '' }
    for (const line of text.slice(offset, end).split('\n')) {
      if (line.startsWith('event: ')) event.name = line.slice(7)
      if (line.startsWith('data: ')) event.data += line.slice(6)
    }
    if (handlers[event.name]) handlers[event.name](JSON.parse(event.data))
    offset = end + 2
  }
}

function send (form) {
  const x = request = new XMLHttpRequest()
  let seen = 0
  x.upload.onprogress = e => {
    $('phase').textContent = `Sending … ${Math.round(100 * e.loaded / e.total)} %`
    $('progress').value = 100 * e.loaded / e.total
  }
  x.onprogress = () => { if (x.status === 200) seen = events(x.responseText, seen) }
  x.onload = () => {
    if (x.status === 200) {
      events(x.responseText, seen)
      if (request === x) finish('The appliance ended its answer too early. Try again.')
      return
    }
    try { finish(words(JSON.parse(x.responseText))) } catch { finish(`The appliance answered ${x.status}.`) }
  }
  x.onerror = () => finish('The connection to the appliance was lost. Try again.')
  x.onabort = () => finish('Cancelled.')
  x.open('POST', '/api/v1/transcriptions')
  x.send(form)
}

$('form').addEventListener('submit', e => {
  e.preventDefault()
  const form = new FormData()
  for (const name of ['language', 'model', 'task']) if ($(name).value) form.append(name, $(name).value)
  form.append('file', $('file').files[0])
  show('error', '')
  $('text').textContent = $('about').textContent = ''
  $('result').hidden = true
  $('work').hidden = false
  $('start').disabled = true
  $('cancel').hidden = false
  send(form)
})
$('cancel').addEventListener('click', () => request && request.abort())
$('copy').addEventListener('click', () => {
  const range = document.createRange()
  range.selectNodeContents($('text'))
  getSelection().removeAllRanges()
  getSelection().addRange(range)
  // Without HTTPS there is no clipboard for pages; the text is selected then.
  if (navigator.clipboard) navigator.clipboard.writeText($('text').textContent)
})
health()
setInterval(health, 30000)
