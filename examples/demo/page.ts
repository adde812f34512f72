/** The page of the demo: an event stream and a WebSocket, both through the proxy. The ids are for whoever drives it by machine. */
export const page = `<!doctype html>
<meta charset="utf-8">
<title>Weir demo</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; color: #1b1f24 }
  h1 { font-size: 1.4rem } output { display: block; font-family: ui-monospace, monospace; background: #f3f5f7; padding: .5rem .75rem; border-radius: .4rem; min-height: 1.5em }
</style>
<h1>Weir: through the proxy</h1>
<p>Event stream (EventSource <code>/events</code>): <output id="event">waiting</output></p>
<p>WebSocket echo (<code>/ws</code>): <output id="echo">waiting</output></p>
<p>Request (fetch <code>/hello</code>, every second): <output id="hello">waiting</output></p>
<script>
  const show = (id, text) => { document.getElementById(id).textContent = text }
  const events = new EventSource('/events')
  events.onmessage = (event) => show('event', event.data)
  events.onerror = () => show('event', 'reconnecting')
  function talk() {
    const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws')
    let timer
    socket.onopen = () => { let n = 0; timer = setInterval(() => socket.send('message ' + ++n), 500) }
    socket.onmessage = (event) => show('echo', event.data)
    socket.onclose = () => { clearInterval(timer); show('echo', 'reconnecting'); setTimeout(talk, 500) }
  }
  talk()
  setInterval(async () => { try { show('hello', await (await fetch('/hello')).text()) } catch (error) { show('hello', String(error)) } }, 1000)
</script>
`
