import { ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, ICommandPalette, InputDialog, MainAreaWidget, WidgetTracker, showDialog } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { IEditorTracker } from '@jupyterlab/fileeditor';
import { ILauncher } from '@jupyterlab/launcher';
import { IMainMenu } from '@jupyterlab/mainmenu';
import { Contents } from '@jupyterlab/services';
import { Menu } from '@lumino/widgets';

import { packagerIcon } from './icon';
import { PanelModel } from './model';
import { PackagingWidget } from './packaging';
import { PackagerPanel } from './panel';
import { Client, ITemplate, Collection } from './request';
import { showProblem, submitText } from './submission';

namespace Commands {
  export const submit = 'packager:submit';
  export const fromTemplate = 'packager:new-from-template';
  export const open = 'packager:open-packaging';
  export const remove = 'packager:delete';
  export const refresh = 'packager:refresh';
}

const KINDS: Record<Collection, string> = {
  packagings: 'packaging',
  connections: 'connection',
  integrations: 'integration'
};
const SUBMITTABLE = ['.yaml', '.yml', '.json'];

/** Write a template to a file of its name, or to an untitled file if the name is taken. */
async function writeTemplate(contents: Contents.IManager, folder: string, template: ITemplate): Promise<string> {
  const file = await contents.newUntitled({ path: folder, type: 'file', ext: '.yaml' });
  const wanted = PathExt.join(folder, `${template.name}.yaml`);
  const path = await contents.rename(file.path, wanted).then(
    renamed => renamed.path,
    () => file.path
  );
  await contents.save(path, { type: 'file', format: 'text', content: template.text });
  return path;
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'packager-jupyterlab:plugin',
  description: 'A panel of packagings, connections and integrations.',
  autoStart: true,
  requires: [IEditorTracker],
  optional: [ICommandPalette, IDefaultFileBrowser, ILauncher, ILayoutRestorer, IMainMenu],
  activate: (
    app: JupyterFrontEnd,
    editors: IEditorTracker,
    palette: ICommandPalette | null,
    files: IDefaultFileBrowser | null,
    launcher: ILauncher | null,
    restorer: ILayoutRestorer | null,
    menu: IMainMenu | null
  ) => {
    const { commands, shell } = app;
    const client = new Client(app.serviceManager.serverSettings);
    const model: PanelModel = new PanelModel(client, () => panel.isVisible);
    const panel: PackagerPanel = new PackagerPanel(model, {
      open: id => void commands.execute(Commands.open, { id }),
      delete: (collection, id) => void commands.execute(Commands.remove, { collection, id }),
      submit: () => void commands.execute(Commands.submit),
      fromTemplate: () => void commands.execute(Commands.fromTemplate),
      refresh: () => void commands.execute(Commands.refresh)
    });
    const opened = new WidgetTracker<MainAreaWidget<PackagingWidget>>({ namespace: 'packager' });

    commands.addCommand(Commands.refresh, { label: 'Refresh the Packager Panel', execute: () => model.refresh() });

    commands.addCommand(Commands.open, {
      label: args => `Show Packaging ${args.id ?? ''}`,
      execute: args => {
        const id = String(args.id);
        const shown = opened.find(widget => widget.content.title.label === id);
        if (shown) {
          shell.activateById(shown.id);
          return;
        }
        const content = new PackagingWidget(client, id);
        const widget = new MainAreaWidget({ content });
        widget.id = `${content.id}-tab`;
        void opened.add(widget);
        shell.add(widget, 'main');
        shell.activateById(widget.id);
      }
    });

    commands.addCommand(Commands.remove, {
      label: 'Delete a Packaging, Connection or Integration',
      isVisible: () => false,
      execute: async args => {
        const collection = args.collection as Collection;
        const id = String(args.id);
        const asked = await showDialog({
          title: `Delete the ${KINDS[collection]} ${id}?`,
          body: collection === 'packagings' ? 'A running build is stopped. Pushed images are kept.' : '',
          buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Delete' })]
        });
        if (!asked.button.accept) {
          return;
        }
        try {
          await client.delete(collection, id);
          if (collection === 'packagings') {
            opened.find(widget => widget.content.title.label === id)?.dispose();
          }
        } catch (error) {
          await showProblem(`The ${KINDS[collection]} ${id} was not deleted`, error);
        }
        await model.refresh();
      }
    });

    commands.addCommand(Commands.submit, {
      label: 'Submit This File to the Packager',
      caption: 'Create or edit the entities of the open YAML file',
      icon: packagerIcon,
      execute: async () => {
        const editor = editors.currentWidget;
        if (!editor || !SUBMITTABLE.includes(PathExt.extname(editor.context.path))) {
          await showProblem(
            'Nothing was submitted',
            'Open a YAML file in the editor first, or create one from a template.'
          );
          return;
        }
        const name = PathExt.basename(editor.context.path);
        const started = await submitText(client, name, editor.content.model.sharedModel.getSource());
        await model.refresh();
        if (started.length === 1) {
          await commands.execute(Commands.open, { id: started[0] });
        }
      }
    });

    commands.addCommand(Commands.fromTemplate, {
      label: args => (args.isPalette ? 'New Packager File From a Template' : 'Packager File'),
      caption: 'Start a packaging, a connection or an integration from a template',
      icon: packagerIcon,
      execute: async args => {
        let templates: ITemplate[];
        try {
          templates = await client.templates();
        } catch (error) {
          await showProblem('Cannot load the templates', error);
          return;
        }
        let name = args.name as string | undefined;
        if (!name) {
          const asked = await InputDialog.getItem({
            title: 'Template',
            items: templates.map(template => template.name),
            okLabel: 'Create'
          });
          name = asked.button.accept ? (asked.value ?? undefined) : undefined;
        }
        const template = templates.find(template => template.name === name);
        if (!template) {
          return;
        }
        try {
          const folder = (args.cwd as string | undefined) ?? files?.model.path ?? '';
          const path = await writeTemplate(app.serviceManager.contents, folder, template);
          await commands.execute('docmanager:open', { path, factory: 'Editor' });
        } catch (error) {
          await showProblem('The file was not created', error);
        }
      }
    });

    const shown = [Commands.fromTemplate, Commands.submit, Commands.refresh];
    shown.forEach(command => palette?.addItem({ command, category: 'Packager', args: { isPalette: true } }));
    app.contextMenu.addItem({ command: Commands.submit, selector: '.jp-FileEditor', rank: 20 });
    launcher?.add({ command: Commands.fromTemplate, category: 'Other', rank: 20 });
    if (menu) {
      const own = new Menu({ commands });
      own.title.label = 'Packager';
      shown.forEach(command => own.addItem({ command, args: { isPalette: true } }));
      menu.addMenu(own, true, { rank: 900 });
    }
    shell.add(panel, 'left', { rank: 700 });
    restorer?.add(panel, 'packager-panel');
    if (restorer) {
      void restorer.restore(opened, {
        command: Commands.open,
        args: widget => ({ id: widget.content.title.label }),
        name: widget => widget.content.title.label
      });
    }
  }
};

export default plugin;
