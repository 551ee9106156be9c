import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Client, IEntity, IService, RequestError, Shelf } from './request';

const BUSY_MS = 3000;
const QUIET_MS = 15000;
const SHELVES: Shelf[] = ['packagings', 'connections', 'integrations'];

export interface IShelfState {
  items: IEntity[];
  more: boolean;
  pages: number;
}

/** Whether a packaging has come to its end. */
export function isFinished(packaging: IEntity): boolean {
  return ['succeeded', 'failed'].includes(packaging.status?.state ?? '');
}

/** What the panel shows; asked anew every few seconds while somebody can see it. */
export class PanelModel {
  readonly shelves: Record<Shelf, IShelfState> = {
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

  /** Ask now, not at the next turn. */
  refresh(): Promise<void> {
    return this._poll.refresh();
  }

  /** Show one more page of a list. */
  async more(shelf: Shelf): Promise<void> {
    this.shelves[shelf].pages += 1;
    await this.refresh();
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  private async load(): Promise<void> {
    try {
      this.service = await this.client.service();
      await Promise.all(SHELVES.map(shelf => this.loadShelf(shelf)));
      this.error = '';
    } catch (error) {
      this.error = RequestError.textOf(error);
    }
    this.loaded = true;
    const busy = !this.error && this.shelves.packagings.items.some(packaging => !isFinished(packaging));
    this._poll.frequency = { ...this._poll.frequency, interval: busy ? BUSY_MS : QUIET_MS };
    this._changed.emit();
  }

  private async loadShelf(shelf: Shelf): Promise<void> {
    const state = this.shelves[shelf];
    const items: IEntity[] = [];
    let more = true;
    for (let page = 0; page < state.pages && more; page++) {
      const answer = await this.client.list(shelf, page);
      items.push(...answer.items);
      more = answer.more;
    }
    const newest = (entity: IEntity) => entity.createdAt ?? '';
    state.items =
      shelf === 'packagings'
        ? items.sort((one, other) => newest(other).localeCompare(newest(one)))
        : items.sort((one, other) => one.id.localeCompare(other.id));
    state.more = more;
  }
}
