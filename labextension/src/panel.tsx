import { ReactWidget, UseSignal, addIcon, deleteIcon, fileUploadIcon, refreshIcon } from '@jupyterlab/ui-components';
import type { LabIcon } from '@jupyterlab/ui-components';
import React from 'react';

import { packagerIcon } from './icon';
import { PanelModel } from './model';
import type { IEntity, Collection } from './request';
import { ageOf, stateOf } from './format';

/** The actions of the panel; each one is a command. */
export interface IActions {
  open(id: string): void;
  delete(collection: Collection, id: string): void;
  submit(): void;
  fromTemplate(): void;
  refresh(): void;
}

interface IButton {
  icon: LabIcon;
  label: string;
  onClick: () => void;
}

function IconButton({ icon, label, onClick }: IButton): JSX.Element {
  return (
    <button className="jp-packager-button" title={label} aria-label={label} onClick={onClick}>
      <icon.react tag="span" width="16px" height="16px" />
    </button>
  );
}

function Packaging({ entity, actions }: { entity: IEntity; actions: IActions }): JSX.Element {
  const state = stateOf(entity);
  return (
    <li className="jp-packager-row" data-id={entity.id}>
      <button
        className="jp-packager-open"
        title={`Show ${entity.id} and its log`}
        onClick={() => actions.open(entity.id)}
      >
        <span className="jp-packager-name">{entity.id}</span>
        <span className="jp-packager-facts">
          <span className={`jp-packager-state jp-mod-${state}`}>{state}</span>
          <span>{entity.spec.integrationName}</span>
          <span title={entity.createdAt}>{ageOf(entity.createdAt)}</span>
        </span>
      </button>
      <IconButton
        icon={deleteIcon}
        label={`Delete ${entity.id}`}
        onClick={() => actions.delete('packagings', entity.id)}
      />
    </li>
  );
}

function Plain({
  entity,
  collection,
  actions
}: {
  entity: IEntity;
  collection: Collection;
  actions: IActions;
}): JSX.Element {
  const facts =
    collection === 'connections'
      ? [entity.spec.type, entity.spec.uri, entity.spec.vital ? 'vital' : '']
      : [entity.spec.defaultImage];
  return (
    <li className="jp-packager-row" data-id={entity.id} title={entity.spec.description}>
      <span className="jp-packager-open">
        <span className="jp-packager-name">{entity.id}</span>
        <span className="jp-packager-facts">
          {facts.filter(Boolean).map(fact => (
            <span key={fact as string}>{fact}</span>
          ))}
        </span>
      </span>
      {!entity.spec.vital && (
        <IconButton
          icon={deleteIcon}
          label={`Delete ${entity.id}`}
          onClick={() => actions.delete(collection, entity.id)}
        />
      )}
    </li>
  );
}

function Section({
  model,
  collection,
  actions
}: {
  model: PanelModel;
  collection: Collection;
  actions: IActions;
}): JSX.Element {
  const { items, more } = model.collections[collection];
  return (
    <details className="jp-packager-section" open={collection === 'packagings' || items.length <= 10}>
      <summary>
        {collection[0].toUpperCase() + collection.slice(1)}{' '}
        <span className="jp-packager-count">{more ? `${items.length}+` : items.length}</span>
      </summary>
      <ul>
        {items.map(entity =>
          collection === 'packagings' ? (
            <Packaging key={entity.id} entity={entity} actions={actions} />
          ) : (
            <Plain key={entity.id} entity={entity} collection={collection} actions={actions} />
          )
        )}
      </ul>
      {items.length === 0 && model.loaded && !model.error && <p className="jp-packager-none">none yet</p>}
      {more && (
        <button className="jp-packager-more jp-mod-styled" onClick={() => void model.more(collection)}>
          Show more
        </button>
      )}
    </details>
  );
}

function Contents({ model, actions }: { model: PanelModel; actions: IActions }): JSX.Element {
  const user = model.service?.user?.username;
  return (
    <>
      <div className="jp-packager-toolbar" role="toolbar" aria-label="Packager">
        <span
          className="jp-packager-title"
          title={model.service ? `${model.service.url}${user ? `, as ${user}` : ''}` : ''}
        >
          Packager
        </span>
        <IconButton icon={addIcon} label="New file from a template" onClick={actions.fromTemplate} />
        <IconButton icon={fileUploadIcon} label="Submit the open YAML file" onClick={actions.submit} />
        <IconButton icon={refreshIcon} label="Refresh" onClick={actions.refresh} />
      </div>
      {model.error && (
        <p className="jp-packager-error" role="alert">
          {model.error}
        </p>
      )}
      <div className="jp-packager-lists">
        {(['packagings', 'connections', 'integrations'] as Collection[]).map(collection => (
          <Section key={collection} model={model} collection={collection} actions={actions} />
        ))}
      </div>
    </>
  );
}

/** The side panel with packagings, connections and integrations. */
export class PackagerPanel extends ReactWidget {
  constructor(
    private readonly model: PanelModel,
    private readonly actions: IActions
  ) {
    super();
    this.id = 'packager-panel';
    this.title.icon = packagerIcon;
    this.title.caption = 'Packager';
    this.addClass('jp-packager-panel');
  }

  render(): JSX.Element {
    return (
      <UseSignal signal={this.model.changed}>{() => <Contents model={this.model} actions={this.actions} />}</UseSignal>
    );
  }

  protected onAfterShow(): void {
    void this.model.refresh();
  }
}
