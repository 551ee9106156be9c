"use strict";(self.rspackChunkpackager_jupyterlab=self.rspackChunkpackager_jupyterlab||[]).push([["style_index_js"],{"./node_modules/css-loader/dist/cjs.js!./style/base.css"(e,r,o){var t=o("./node_modules/css-loader/dist/runtime/noSourceMaps.js"),a=o.n(t),n=o("./node_modules/css-loader/dist/runtime/api.js"),s=(o.n(n))()(a());s.push([e.id,`.jp-packager-panel {
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  display: flex;
  flex-direction: column;
  font-size: var(--jp-ui-font-size1);
}

.jp-packager-toolbar {
  align-items: center;
  border-bottom: 1px solid var(--jp-border-color2);
  display: flex;
  gap: 2px;
  padding: 4px 8px;
}

.jp-packager-title {
  flex: 1;
  font-weight: 600;
}

.jp-packager-button {
  align-items: center;
  background: none;
  border: 1px solid transparent;
  border-radius: 3px;
  cursor: pointer;
  display: inline-flex;
  padding: 4px;
}

.jp-packager-button:hover,
.jp-packager-row:hover {
  background: var(--jp-layout-color2);
}

.jp-packager-button:focus-visible,
.jp-packager-open:focus-visible,
.jp-packager-section > summary:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: -2px;
}

.jp-packager-lists {
  flex: 1;
  overflow: auto;
}

.jp-packager-section > summary {
  background: var(--jp-layout-color2);
  cursor: pointer;
  font-weight: 600;
  padding: 6px 8px;
  position: sticky;
  top: 0;
}

.jp-packager-count {
  color: var(--jp-ui-font-color2);
  font-weight: normal;
}

.jp-packager-section ul {
  list-style: none;
  margin: 0;
  padding: 0;
}

.jp-packager-row {
  align-items: center;
  border-bottom: 1px solid var(--jp-border-color3);
  display: flex;
  padding-right: 4px;
}

.jp-packager-open {
  background: none;
  border: 0;
  color: inherit;
  display: block;
  flex: 1;
  font: inherit;
  min-width: 0;
  padding: 6px 8px;
  text-align: left;
}

button.jp-packager-open {
  cursor: pointer;
}

.jp-packager-name {
  display: block;
  overflow-wrap: anywhere;
}

.jp-packager-facts {
  color: var(--jp-ui-font-color2);
  display: flex;
  flex-wrap: wrap;
  font-size: var(--jp-ui-font-size0);
  gap: 0 8px;
  overflow-wrap: anywhere;
}

.jp-packager-state {
  align-items: center;
  display: inline-flex;
  font-size: var(--jp-ui-font-size1);
  gap: 4px;
}

.jp-packager-facts .jp-packager-state {
  font-size: var(--jp-ui-font-size0);
}

.jp-packager-state::before {
  background: var(--jp-ui-font-color3);
  border-radius: 50%;
  content: '';
  height: 8px;
  width: 8px;
}

.jp-packager-state.jp-mod-running::before {
  background: var(--jp-brand-color1);
}

.jp-packager-state.jp-mod-succeeded::before {
  background: var(--jp-success-color1);
}

.jp-packager-state.jp-mod-failed::before {
  background: var(--jp-error-color1);
  border-radius: 0;
}

.jp-packager-none,
.jp-packager-more {
  margin: 8px;
}

.jp-packager-none {
  color: var(--jp-ui-font-color2);
}

.jp-packager-error {
  border-left: 4px solid var(--jp-error-color1);
  margin: 8px;
  overflow-wrap: anywhere;
  padding: 4px 8px;
  white-space: pre-wrap;
}

.jp-packager-packaging {
  display: flex;
  flex-direction: column;
  background: var(--jp-layout-color0);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
}

.jp-packager-head {
  flex: none;
  max-height: 50%;
  border-bottom: 1px solid var(--jp-border-color2);
  overflow: auto;
  padding: 0 12px;
}

.jp-packager-head h2 {
  font-size: var(--jp-ui-font-size3);
  margin: 8px 0;
}

.jp-packager-head dl {
  display: grid;
  gap: 2px 12px;
  grid-template-columns: max-content 1fr;
  margin: 0 0 8px;
}

.jp-packager-head dt {
  color: var(--jp-ui-font-color2);
}

.jp-packager-head dd {
  margin: 0;
  overflow-wrap: anywhere;
}

.jp-packager-head details {
  margin-bottom: 8px;
}

.jp-packager-log {
  flex: 1;
  min-height: 0;
  overflow: auto;
}

.jp-packager-log pre {
  box-sizing: border-box;
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size);
  margin: 0;
  min-height: 100%;
  padding: 8px 12px;
  white-space: pre-wrap;
}

.jp-packager-problem,
.jp-packager-outcomes pre {
  font-family: var(--jp-ui-font-family);
  margin: 0;
  overflow-wrap: anywhere;
  white-space: pre-wrap;
}

.jp-packager-outcomes {
  margin: 0;
  padding-left: 20px;
}
`,""]),o.d(r,{},{A:s})},"./node_modules/css-loader/dist/runtime/api.js"(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var o="",t=void 0!==r[5];return r[4]&&(o+="@supports (".concat(r[4],") {")),r[2]&&(o+="@media ".concat(r[2]," {")),t&&(o+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),o+=e(r),t&&(o+="}"),r[2]&&(o+="}"),r[4]&&(o+="}"),o}).join("")},r.i=function(e,o,t,a,n){"string"==typeof e&&(e=[[null,e,void 0]]);var s={};if(t)for(var i=0;i<this.length;i++){var p=this[i][0];null!=p&&(s[p]=!0)}for(var l=0;l<e.length;l++){var c=[].concat(e[l]);t&&s[c[0]]||(void 0!==n&&(void 0===c[5]||(c[1]="@layer".concat(c[5].length>0?" ".concat(c[5]):""," {").concat(c[1],"}")),c[5]=n),o&&(c[2]&&(c[1]="@media ".concat(c[2]," {").concat(c[1],"}")),c[2]=o),a&&(c[4]?(c[1]="@supports (".concat(c[4],") {").concat(c[1],"}"),c[4]=a):c[4]="".concat(a)),r.push(c))}},r}},"./node_modules/css-loader/dist/runtime/noSourceMaps.js"(e){e.exports=function(e){return e[1]}},"./node_modules/style-loader/dist/runtime/injectStylesIntoStyleTag.js"(e){var r=[];function o(e){for(var o=-1,t=0;t<r.length;t++)if(r[t].identifier===e){o=t;break}return o}function t(e,t){for(var a={},n=[],s=0;s<e.length;s++){var i=e[s],p=t.base?i[0]+t.base:i[0],l=a[p]||0,c="".concat(p," ").concat(l);a[p]=l+1;var d=o(c),u={css:i[1],media:i[2],sourceMap:i[3],supports:i[4],layer:i[5]};if(-1!==d)r[d].references++,r[d].updater(u);else{var f=function(e,r){var o=r.domAPI(r);return o.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&o.update(e=r):o.remove()}}(u,t);t.byIndex=s,r.splice(s,0,{identifier:c,updater:f,references:1})}n.push(c)}return n}e.exports=function(e,a){var n=t(e=e||[],a=a||{});return function(e){e=e||[];for(var s=0;s<n.length;s++){var i=o(n[s]);r[i].references--}for(var p=t(e,a),l=0;l<n.length;l++){var c=o(n[l]);0===r[c].references&&(r[c].updater(),r.splice(c,1))}n=p}}},"./node_modules/style-loader/dist/runtime/insertBySelector.js"(e){var r={};e.exports=function(e,o){var t=function(e){if(void 0===r[e]){var o=document.querySelector(e);if(window.HTMLIFrameElement&&o instanceof window.HTMLIFrameElement)try{o=o.contentDocument.head}catch(e){o=null}r[e]=o}return r[e]}(e);if(!t)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");t.appendChild(o)}},"./node_modules/style-loader/dist/runtime/insertStyleElement.js"(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},"./node_modules/style-loader/dist/runtime/setAttributesWithoutAttributes.js"(e,r,o){e.exports=function(e){var r=o.nc;r&&e.setAttribute("nonce",r)}},"./node_modules/style-loader/dist/runtime/styleDomAPI.js"(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(o){var t,a,n;t="",o.supports&&(t+="@supports (".concat(o.supports,") {")),o.media&&(t+="@media ".concat(o.media," {")),(a=void 0!==o.layer)&&(t+="@layer".concat(o.layer.length>0?" ".concat(o.layer):""," {")),t+=o.css,a&&(t+="}"),o.media&&(t+="}"),o.supports&&(t+="}"),(n=o.sourceMap)&&"u">typeof btoa&&(t+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(n))))," */")),e.styleTagTransform(t,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},"./node_modules/style-loader/dist/runtime/styleTagTransform.js"(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}},"./style/index.js"(e,r,o){var t=o("./node_modules/style-loader/dist/runtime/injectStylesIntoStyleTag.js"),a=o.n(t),n=o("./node_modules/style-loader/dist/runtime/styleDomAPI.js"),s=o.n(n),i=o("./node_modules/style-loader/dist/runtime/insertBySelector.js"),p=o.n(i),l=o("./node_modules/style-loader/dist/runtime/setAttributesWithoutAttributes.js"),c=o.n(l),d=o("./node_modules/style-loader/dist/runtime/insertStyleElement.js"),u=o.n(d),f=o("./node_modules/style-loader/dist/runtime/styleTagTransform.js"),g=o.n(f),m=o("./node_modules/css-loader/dist/cjs.js!./style/base.css"),j={};j.styleTagTransform=g(),j.setAttributes=c(),j.insert=p().bind(null,"head"),j.domAPI=s(),j.insertStyleElement=u(),a()(m.A,j),m.A&&m.A.locals&&m.A.locals}}]);