import { Notification } from '@jupyterlab/apputils';
import { ReactWidget, copyIcon } from '@jupyterlab/ui-components';
import { PanelLayout, Widget } from '@lumino/widgets';
import React from 'react';

import { packagerIcon } from './icon';
import { isFinished } from './model';
import { Client, IEntity, RequestError } from './request';
import { ageOf, resultOf, stateOf } from './format';

const RETRY_MS = 3000;
const POLL_MS = 3000;
const MAX_CHARACTERS = 2_000_000;

function copy(text: string): void {
  navigator.clipboard.writeText(text).then(
    () => Notification.success('Copied.', { autoClose: 2000 }),
    () => Notification.error('The browser refused to copy the text.')
  );
}

function Head({ packaging, error }: { packaging: IEntity | null; error: string }): JSX.Element {
  if (!packaging) {
    return error ? (
      <p className="jp-packager-error" role="alert">
        {error}
      </p>
    ) : (
      <p>…</p>
    );
  }
  const state = stateOf(packaging);
  const image = resultOf(packaging, 'imageDigest') || resultOf(packaging, 'image');
  const check = resultOf(packaging, 'modelCheck');
  const given = Object.entries(packaging.spec.arguments ?? {});
  return (
    <>
      <h2>
        {packaging.id} <span className={`jp-packager-state jp-mod-${state}`}>{state}</span>
      </h2>
      <dl>
        <dt>Integration</dt>
        <dd>{packaging.spec.integrationName}</dd>
        <dt>Artifact</dt>
        <dd>{packaging.spec.artifactName}</dd>
        <dt>Age</dt>
        <dd title={packaging.createdAt}>{ageOf(packaging.createdAt)}</dd>
        {image && (
          <>
            <dt>Image</dt>
            <dd>
              <code>{image}</code>
              <button
                className="jp-packager-button"
                title="Copy the image"
                aria-label="Copy the image"
                onClick={() => copy(image)}
              >
                <copyIcon.react tag="span" width="16px" height="16px" />
              </button>
            </dd>
          </>
        )}
        {check && (
          <>
            <dt>Model check</dt>
            <dd>{check}</dd>
          </>
        )}
      </dl>
      {state === 'failed' && (
        <p className="jp-packager-error" role="alert">
          {packaging.status?.message || packaging.status?.reason || 'Failed; see the log.'}
        </p>
      )}
      {given.length > 0 && (
        <details>
          <summary>Arguments</summary>
          <dl>
            {given.map(([name, value]) => (
              <React.Fragment key={name}>
                <dt>{name}</dt>
                <dd>
                  <code>{typeof value === 'string' ? value : JSON.stringify(value)}</code>
                </dd>
              </React.Fragment>
            ))}
          </dl>
        </details>
      )}
      {error && (
        <p className="jp-packager-error" role="alert">
          {error}
        </p>
      )}
    </>
  );
}

class HeadWidget extends ReactWidget {
  packaging: IEntity | null = null;
  error = '';

  render(): JSX.Element {
    return <Head packaging={this.packaging} error={this.error} />;
  }
}

/** A tab with the details and the live log of a packaging. */
export class PackagingWidget extends Widget {
  private readonly _head = new HeadWidget();
  private readonly _log = document.createElement('pre');
  private readonly _gone = new AbortController();
  private _kept = 0;

  constructor(
    private readonly client: Client,
    private readonly packagingId: string
  ) {
    super();
    this.id = `packager-packaging-${packagingId}`;
    this.title.label = packagingId;
    this.title.caption = `The packaging ${packagingId} and its log`;
    this.title.icon = packagerIcon;
    this.title.closable = true;
    this.addClass('jp-packager-packaging');
    this._head.addClass('jp-packager-head');
    this._log.tabIndex = 0;
    this._log.setAttribute('role', 'log');
    this._log.setAttribute('aria-label', `Log of ${packagingId}`);
    const log = new Widget({ node: document.createElement('div') });
    log.addClass('jp-packager-log');
    log.node.append(this._log);
    const layout = new PanelLayout();
    layout.addWidget(this._head);
    layout.addWidget(log);
    this.layout = layout;
    void this.watch();
    void this.follow();
  }

  dispose(): void {
    this._gone.abort();
    super.dispose();
  }

  /** Poll the details, also after the end of the run: the packaging may run again. */
  private async watch(): Promise<void> {
    while (!this.isDisposed) {
      if (!document.hidden) {
        await this.load();
      }
      await this.pause(POLL_MS);
    }
  }

  private async load(): Promise<void> {
    try {
      this._head.packaging = await this.client.get('packagings', this.packagingId);
      this._head.error = '';
    } catch (error) {
      this._head.error = RequestError.textOf(error);
    }
    if (!this.isDisposed) {
      this._head.update();
    }
  }

  /** Show the log from its start; restart a broken stream, and start the stream of another run. */
  private async follow(): Promise<void> {
    while (!this.isDisposed) {
      let fresh = true;
      try {
        await this.client.follow(this.packagingId, this._gone.signal, text => {
          if (fresh) {
            this.clear();
            fresh = false;
          }
          this.append(text);
        });
      } catch {
        // `load` shows the error above the log
      }
      await this.load();
      do {
        await this.pause(RETRY_MS);
      } while (!this.isDisposed && this._head.packaging && isFinished(this._head.packaging));
    }
  }

  private clear(): void {
    this._log.replaceChildren();
    this._kept = 0;
  }

  private append(text: string): void {
    if (!text) {
      return;
    }
    const view = this._log.parentElement as HTMLElement;
    const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
    this._log.append(text);
    this._kept += text.length;
    while (this._kept > MAX_CHARACTERS && this._log.childNodes.length > 1) {
      const oldest = this._log.firstChild as Text;
      this._kept -= oldest.length;
      oldest.remove();
    }
    if (atEnd) {
      view.scrollTop = view.scrollHeight;
    }
  }

  private pause(ms: number): Promise<void> {
    return new Promise(resolve => setTimeout(resolve, ms));
  }
}
