import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Client, IEntity, IService, RequestError, Collection } from './request';

const BUSY_MS = 3000;
const QUIET_MS = 15000;
const COLLECTIONS: Collection[] = ['packagings', 'connections', 'integrations'];

export interface ICollectionState {
  items: IEntity[];
  more: boolean;
  pages: number;
}

/** Whether a packaging has ended. */
export function isFinished(packaging: IEntity): boolean {
  return ['succeeded', 'failed'].includes(packaging.status?.state ?? '');
}

/** The state of the panel; it is polled every few seconds while the panel is visible. */
export class PanelModel {
  readonly collections: Record<Collection, ICollectionState> = {
    packagings: { items: [], more: false, pages: 1 },
    connections: { items: [], more: false, pages: 1 },
    integrations: { items: [], more: false, pages: 1 }
  };
  service: IService | null = null;
  error = '';
  loaded = false;

  private readonly _changed = new Signal<this, void>(this);
  private readonly _poll: Poll;

  constructor(
    readonly client: Client,
    isVisible: () => boolean
  ) {
    this._poll = new Poll({
      factory: () => this.load(),
      frequency: { interval: BUSY_MS, backoff: true, max: 60000 },
      name: 'packager:panel',
      standby: () => !isVisible() || document.hidden
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Poll now. */
  refresh(): Promise<void> {
    return this._poll.refresh();
  }

  /** Show one more page of a list. */
  async more(collection: Collection): Promise<void> {
    this.collections[collection].pages += 1;
    await this.refresh();
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  private async load(): Promise<void> {
    try {
      this.service = await this.client.service();
      await Promise.all(COLLECTIONS.map(collection => this.loadCollection(collection)));
      this.error = '';
    } catch (error) {
      this.error = RequestError.textOf(error);
    }
    this.loaded = true;
    const busy = !this.error && this.collections.packagings.items.some(packaging => !isFinished(packaging));
    this._poll.frequency = { ...this._poll.frequency, interval: busy ? BUSY_MS : QUIET_MS };
    this._changed.emit();
  }

  private async loadCollection(collection: Collection): Promise<void> {
    const state = this.collections[collection];
    const items: IEntity[] = [];
    let more = true;
    for (let page = 0; page < state.pages && more; page++) {
      const answer = await this.client.list(collection, page);
      items.push(...answer.items);
      more = answer.more;
    }
    const newest = (entity: IEntity) => entity.createdAt ?? '';
    state.items =
      collection === 'packagings'
        ? items.sort((one, other) => newest(other).localeCompare(newest(one)))
        : items.sort((one, other) => one.id.localeCompare(other.id));
    state.more = more;
  }
}
