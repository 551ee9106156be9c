import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import React from 'react';

import { Client, IOutcome, RequestError } from './request';

function Outcomes({ outcomes }: { outcomes: IOutcome[] }): JSX.Element {
  return (
    <ul className="jp-packager-outcomes">
      {outcomes.map(outcome => (
        <li key={outcome.number}>
          <strong>{outcome.done}</strong>: {outcome.kind} {outcome.id}
          {outcome.message && <pre>{outcome.message}</pre>}
        </li>
      ))}
    </ul>
  );
}

function show(title: string, body: JSX.Element): Promise<unknown> {
  return showDialog({ title, body, buttons: [Dialog.okButton({ label: 'Close' })] });
}

/** Show an error of the API. */
export async function showProblem(title: string, error: unknown): Promise<void> {
  await show(title, <pre className="jp-packager-problem">{RequestError.textOf(error)}</pre>);
}

/** Submit the text of a file and show the outcomes; returns the started packagings. */
export async function submitText(client: Client, name: string, text: string): Promise<string[]> {
  let outcomes: IOutcome[];
  try {
    outcomes = await client.submit(text);
  } catch (error) {
    await showProblem(`${name} was not submitted`, error);
    return [];
  }
  const done = outcomes.filter(outcome => outcome.done === 'created' || outcome.done === 'edited');
  if (done.length < outcomes.length) {
    await show(`${name} was not submitted completely`, <Outcomes outcomes={outcomes} />);
  } else {
    Notification.success(done.map(({ done, kind, id }) => `${kind} ${id} ${done}`).join(', '), { autoClose: 5000 });
  }
  return done.filter(outcome => outcome.kind === 'ModelPackaging').map(outcome => outcome.id);
}
