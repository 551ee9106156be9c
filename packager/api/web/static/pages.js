// Enhancements of the pages: live updates, live logs, copy buttons, and checks while typing.
'use strict';

const POLL_MS = 3000;
const RETRY_MS = 3000;
const CHECK_MS = 400;
const HOLD_MS = 20000;
const MAX_CHARACTERS = 2000000;

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));

function showCopyButtons(root) {
  if (navigator.clipboard) {
    root.querySelectorAll('.copy').forEach(button => (button.hidden = false));
  }
}

async function copy(button) {
  await navigator.clipboard.writeText(button.dataset.copy);
  button.textContent = 'Copied';
  await pause(1500);
  button.textContent = 'Copy';
}

// Reload the live part of this page, and replace it if it has changed.
async function refresh() {
  const live = document.getElementById('live');
  const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
  if (answer.status === 401) {
    location.reload();
    return;
  }
  if (!answer.ok) {
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const fresh = page.getElementById('live');
  if (!fresh) {
    return;
  }
  showCopyButtons(fresh);
  const busy = live.contains(document.activeElement) && document.activeElement.matches('.copy');
  if (busy || fresh.innerHTML === live.innerHTML || !getSelection().isCollapsed) {
    return;
  }
  const focused = live.contains(document.activeElement) ? document.activeElement.id : '';
  live.replaceWith(document.adoptNode(fresh));
  if (focused) {
    document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

async function keepUpToDate() {
  for (;;) {
    await pause(POLL_MS);
    if (!document.hidden) {
      await refresh().catch(() => undefined); // the service is down at the moment
    }
  }
}

const isFinished = () => ['succeeded', 'failed'].includes(document.getElementById('live').dataset.state);

async function readLog(log, take) {
  const answer = await fetch(log.dataset.log);
  if (!answer.ok) {
    throw new Error(answer.statusText);
  }
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    take(decoder.decode(part.value, { stream: true }));
  }
}

// Show a log live; restart a broken stream, and start the stream of another run.
async function followLog(log) {
  let kept = 0;
  const append = text => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(text);
    for (kept += text.length; kept > MAX_CHARACTERS && log.childNodes.length > 1; log.firstChild.remove()) {
      kept -= log.firstChild.length;
    }
    if (atEnd) {
      log.scrollTop = log.scrollHeight;
    }
  };
  for (;;) {
    let fresh = true;
    try {
      await readLog(log, text => {
        if (fresh) {
          log.replaceChildren();
          kept = 0;
          fresh = false;
        }
        append(text);
      });
      await refresh();
    } catch {
      // retried
    }
    do {
      await pause(RETRY_MS);
    } while (isFinished());
  }
}

function goToLine(text, number) {
  const lines = text.value.split('\n');
  const start = lines.slice(0, number - 1).join('\n').length + (number > 1 ? 1 : 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[number - 1] ?? '').length);
  const height = parseFloat(getComputedStyle(text).lineHeight);
  text.scrollTop = Math.max(0, (number - 5) * height);
}

function watchEditor(text) {
  const messages = document.getElementById('messages');
  const numbers = document.getElementById('numbers');
  let timer = 0;
  let asked = 0;
  const mark = () => {
    const wrong = new Set([...messages.querySelectorAll('[data-line]')].map(link => Number(link.dataset.line)));
    const count = text.value.split('\n').length;
    numbers.replaceChildren(
      ...Array.from({ length: count }, (_, index) => {
        const line = document.createElement('span');
        line.textContent = `${index + 1}\n`;
        line.className = wrong.has(index + 1) ? 'wrong' : '';
        return line;
      })
    );
    numbers.scrollTop = text.scrollTop;
  };
  const ask = async () => {
    const answer = await fetch(text.dataset.check, { method: 'POST', body: new URLSearchParams({ text: text.value }) });
    if (!answer.ok) {
      throw new Error(answer.status === 401 ? 'you are logged out; log in in another tab' : `HTTP status ${answer.status}`);
    }
    return answer.text();
  };
  const show = found => {
    messages.replaceChildren(found);
    mark();
  };
  // Show the problems of the current text; retry failed checks.
  const check = async () => {
    const turn = ++asked;
    while (turn === asked) {
      try {
        const found = document.createElement('template');
        found.innerHTML = await ask();
        if (turn === asked) {
          show(found.content);
        }
        return;
      } catch (error) {
        if (turn === asked) {
          show(`Not checked: ${error.message}. Retrying.`);
        }
        await pause(RETRY_MS);
      }
    }
  };
  const later = () => {
    mark();
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_MS);
  };
  text.addEventListener('input', later);
  text.addEventListener('scroll', () => (numbers.scrollTop = text.scrollTop));
  messages.addEventListener('click', event => {
    const line = event.target.closest('[data-line]');
    if (line) {
      event.preventDefault();
      goToLine(text, Number(line.dataset.line));
    }
  });
  numbers.hidden = false;
  mark();
  if (!messages.children.length) {
    check();
  }
}

// Prevent double submissions, and edits that would be lost.
function hold(form, held) {
  form.querySelectorAll('button').forEach(button => (button.disabled = held));
  form.querySelectorAll('textarea').forEach(text => (text.readOnly = held));
}

document.addEventListener('submit', event => {
  hold(event.target, true);
  setTimeout(() => hold(event.target, false), HOLD_MS);
});
window.addEventListener('pageshow', () => document.querySelectorAll('form').forEach(form => hold(form, false)));
document.addEventListener('click', event => {
  const button = event.target.closest('.copy');
  if (button) {
    copy(button);
  }
});
document.querySelectorAll('[data-submit]').forEach(field => field.addEventListener('change', () => field.form.submit()));
showCopyButtons(document);
if (document.querySelector('[data-live]')) {
  keepUpToDate();
}
document.querySelectorAll('[data-log]').forEach(followLog);
document.querySelectorAll('[data-check]').forEach(watchEditor);
